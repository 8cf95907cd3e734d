// The message when the server cannot run, with the remedies as buttons; and the choice of a Python.

import * as vscode from "vscode";
import { because } from "./candidates.ts";
import type { Server } from "./server.ts";
import { changeSetting } from "./settings.ts";

const BUTTONS = { "Install Help": "dgemma.help", "Choose Python": "dgemma.choosePython", "Open Log": "dgemma.showLog" } as const;

/** Shows that the server does not run, and why. */
export async function tellFailure(message: string): Promise<void> {
  const labels = Object.keys(BUTTONS) as (keyof typeof BUTTONS)[];
  const chosen = await vscode.window.showErrorMessage(`dgemma: ${message}`, ...labels);
  if (chosen !== undefined) {
    await vscode.commands.executeCommand(BUTTONS[chosen]);
  }
}

/** Lets the user choose the Python that holds the server; the setting restarts it. */
export async function choosePython(server: Server): Promise<void> {
  const looked = (await server.look("found")).filter(({ candidate, verdict }) => candidate.python && verdict.kind !== "absent");
  const browse = { label: "$(folder-opened) Browse…", description: "the bin/python or Scripts\\python.exe of a virtual environment", python: undefined };
  const found = looked.map(({ candidate, verdict }) => ({
    label: candidate.command,
    description: because(verdict),
    python: candidate.python,
  }));
  const chosen = await vscode.window.showQuickPick([...found, browse], { title: "dgemma: the Python that has dgemma-lsp" });
  const python = chosen === browse ? await browseForPython() : chosen?.python;
  if (python !== undefined) {
    await changeSetting("server.python", python, vscode.ConfigurationTarget.Global);
  }
}

async function browseForPython(): Promise<string | undefined> {
  const files = await vscode.window.showOpenDialog({ title: "Python with dgemma-lsp", openLabel: "Choose" });
  return files?.[0]?.fsPath;
}
