// The status bar item and the menu that it opens.

import * as vscode from "vscode";
import { whySilentHere } from "./largeFile.ts";
import type { Latency } from "./latency.ts";
import { activeLanguage, pausedHere } from "./pause.ts";
import type { Server } from "./server.ts";
import { statusText } from "./statusText.ts";

const COLOURS = {
  none: undefined,
  warning: new vscode.ThemeColor("statusBarItem.warningBackground"),
  error: new vscode.ThemeColor("statusBarItem.errorBackground"),
};

/** Between two tabs there is no active editor for a moment. */
const MOVED_MS = 100;

/** Shows the server's state and the time of the last suggestion. */
export class StatusBar implements vscode.Disposable {
  readonly #item = vscode.window.createStatusBarItem("dgemma.status", vscode.StatusBarAlignment.Right, 90);
  readonly #subscriptions: vscode.Disposable[];
  readonly #server: Server;
  readonly #latency: Latency;
  #timer: NodeJS.Timeout | undefined;

  constructor(server: Server, latency: Latency) {
    this.#server = server;
    this.#latency = latency;
    this.#item.name = "dgemma";
    this.#item.command = "dgemma.menu";
    const refresh = () => this.refresh();
    const moved = () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(refresh, MOVED_MS);
    };
    this.#subscriptions = [
      server.onDidChange(() => {
        if (server.state.kind !== "running") {
          latency.clear(); // times of another process say nothing about the next
        }
        refresh();
      }),
      vscode.window.onDidChangeActiveTextEditor(moved),
      vscode.window.tabGroups.onDidChangeTabs(moved),
      vscode.workspace.onDidChangeConfiguration(refresh),
    ];
    this.refresh();
    this.#item.show();
  }

  dispose(): void {
    clearTimeout(this.#timer);
    for (const disposable of [...this.#subscriptions, this.#item]) {
      disposable.dispose();
    }
  }

  /** Updates the item. */
  refresh(): void {
    const { text, tooltip, severity } = statusText({
      server: this.#server.state,
      paused: pausedHere(),
      languageId: activeLanguage(),
      uri: vscode.window.activeTextEditor?.document.uri.toString(),
      silent: whySilentHere(),
      lastMs: this.#latency.last,
      medianMs: this.#latency.median,
    });
    this.#item.text = text;
    this.#item.tooltip = tooltip;
    this.#item.backgroundColor = COLOURS[severity];
  }
}

/** Shows the menu of the item, and runs the chosen command. */
export async function showMenu(): Promise<void> {
  const paused = pausedHere();
  const language = activeLanguage();
  const entries: [label: string, command: string][] = [
    [paused === "workspace" ? "$(play) Resume in this workspace" : "$(debug-pause) Pause in this workspace", "dgemma.toggleWorkspace"],
    ["$(sparkle) Suggest at the cursor", "dgemma.trigger"],
    ["$(wand) Fill the selection", "dgemma.fillSelection"],
    ["$(eye) Show denoising at the cursor", "dgemma.showDenoising"],
    ["$(debug-restart) Restart the server", "dgemma.restart"],
    ["$(output) Show the log", "dgemma.showLog"],
    ["$(pulse) Check the installation", "dgemma.doctor"],
    ["$(cloud-download) Fetch the model", "dgemma.getModel"],
    ["$(mortar-board) Learn this repository", "dgemma.learn"],
    ["$(graph) Show statistics", "dgemma.showStats"],
    ["$(gear) Settings", "dgemma.settings"],
  ];
  if (language !== undefined && paused !== "workspace") {
    const label = paused === "language" ? "$(play) Resume" : "$(debug-pause) Pause";
    entries.unshift([`${label} for ${language}`, "dgemma.toggleLanguage"]);
  }
  const items = entries.map(([label, command]) => ({ label, command }));
  const chosen = await vscode.window.showQuickPick(items, { title: "dgemma" });
  if (chosen !== undefined) {
    await vscode.commands.executeCommand(chosen.command);
  }
}
