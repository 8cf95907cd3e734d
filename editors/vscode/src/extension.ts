// The extension's entry point: makes the parts, connects them, registers the commands.

import * as vscode from "vscode";
import { fetchModel } from "./fetch.ts";
import { fill } from "./fill.ts";
import { whyNoEditor } from "./largeFile.ts";
import { Latency } from "./latency.ts";
import { forgetRepository, learnRepository } from "./learn.ts";
import { choosePython, tellFailure } from "./notices.ts";
import { showDoctor, StatsPage } from "./pages.ts";
import { toggleLanguage, toggleWorkspace } from "./pause.ts";
import { ADDED_KEYS, PERSONAL_KEYS } from "./personal.ts";
import { Preview } from "./preview.ts";
import type { FillQuestion } from "./protocol.ts";
import { Server } from "./server.ts";
import { SECTION } from "./settings.ts";
import { showMenu, StatusBar } from "./statusBar.ts";
import { middleware } from "./suggestions.ts";

const WALKTHROUGH = "dgemma.dgemma-lsp#start";

/** Registers everything and starts the server; returns at once. */
export function activate(context: vscode.ExtensionContext): void {
  const home = context.extensionUri.fsPath;
  const log = vscode.window.createOutputChannel("dgemma", { log: true });
  const latency = new Latency();
  const preview = new Preview();
  const stats = new StatsPage();
  const between = middleware(latency, preview, {
    server: () => server,
    fill: (question) => fill(server, question),
    shown: () => statusBar.refresh(),
  });
  const server: Server = new Server(log, home, between);
  const statusBar = new StatusBar(server, latency);
  const commands: Record<string, (...args: never[]) => unknown> = {
    trigger: () => run("editor.action.inlineSuggest.trigger"),
    next: () => run("editor.action.inlineSuggest.showNext"),
    previous: () => run("editor.action.inlineSuggest.showPrevious"),
    fillSelection: (question?: FillQuestion) => fill(server, question),
    showDenoising: () => showDenoising(server, preview),
    toggleLanguage,
    toggleWorkspace,
    restart: () => server.restart(),
    showLog: () => log.show(),
    doctor: () => showDoctor(server, log, home),
    showStats: () => stats.show(server),
    choosePython: () => choosePython(server),
    getModel: () => fetchModel(server.beyond),
    learn: (uri?: string) => learnRepository(server.beyond, uri),
    forget: (uri?: string) => forgetRepository(server.beyond, uri),
    settings: () => run("workbench.action.openSettings", "@ext:dgemma.dgemma-lsp"),
    help: () => run("workbench.action.openWalkthrough", WALKTHROUGH),
    menu: showMenu,
  };
  context.subscriptions.push(
    log,
    preview,
    stats,
    statusBar,
    server,
    ...Object.entries(commands).map(([name, command]) => vscode.commands.registerCommand(`dgemma.${name}`, told(command))),
    server.onDidFail((message) => void tellFailure(message)),
    vscode.workspace.onDidGrantWorkspaceTrust(() => void server.restart()),
    vscode.workspace.onDidChangeConfiguration((event) => {
      const restarting = ["server", ...PERSONAL_KEYS, ...ADDED_KEYS];
      if (restarting.some((key) => event.affectsConfiguration(`${SECTION}.${key}`))) {
        void server.restart();
      }
    }),
  );
  void server.restart();
}

/** A command whose error is shown in one sentence: VS Code would show a dialog. */
function told(command: (...args: never[]) => unknown): (...args: never[]) => Promise<void> {
  return async (...args) => {
    try {
      await command(...args);
    } catch (error) {
      void vscode.window.showWarningMessage(`dgemma: ${error instanceof Error ? error.message : String(error)}`);
    }
  };
}

async function run(command: string, ...args: unknown[]): Promise<void> {
  await vscode.commands.executeCommand(command, ...args);
}

async function showDenoising(server: Server, preview: Preview): Promise<void> {
  const client = server.beyond;
  const editor = vscode.window.activeTextEditor;
  if (typeof client === "string" || editor === undefined) {
    void vscode.window.showWarningMessage(`dgemma: ${typeof client === "string" ? client : whyNoEditor()}`);
  } else {
    await preview.show(client, editor);
  }
}
