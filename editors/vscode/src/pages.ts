// Pages that the user asks for: the doctor's report and the statistics of suggestions.

import { execFile } from "node:child_process";
import * as vscode from "vscode";
import { because } from "./candidates.ts";
import { STATS } from "./protocol.ts";
import type { Server } from "./server.ts";
import { statsPage } from "./statsPage.ts";

const DOCTOR_TIMEOUT_MS = 60_000;

/** Writes the doctor's report into the log, and shows it. */
export async function showDoctor(server: Server, log: vscode.LogOutputChannel, home: string): Promise<void> {
  log.show(true);
  const looked = [...(await server.look("first")), ...(await server.look("found"))];
  for (const { candidate, verdict } of looked.filter(({ verdict }) => verdict.kind !== "absent")) {
    log.appendLine(`${candidate.command} (${candidate.origin}) ${because(verdict)}`);
  }
  const { candidate } = server;
  if (candidate === undefined) {
    log.appendLine("None of them runs. Install the server: pip install 'dgemma-lsp[engine]'");
    return;
  }
  const ask = { cwd: home, timeout: DOCTOR_TIMEOUT_MS, windowsHide: true };
  await vscode.window.withProgress({ location: vscode.ProgressLocation.Window, title: "dgemma doctor" }, () =>
    new Promise<void>((resolve) => {
      execFile(candidate.command, [...candidate.args, "doctor"], ask, (error, stdout, stderr) => {
        log.appendLine(stdout || stderr || error?.message || "the doctor printed nothing");
        resolve();
      });
    }),
  );
}

/** The server's counts as a read-only page that closes without a question. */
export class StatsPage implements vscode.TextDocumentContentProvider, vscode.Disposable {
  readonly #uri = vscode.Uri.from({ scheme: "dgemma", path: "/dgemma statistics" });
  readonly #changed = new vscode.EventEmitter<vscode.Uri>();
  readonly #registration: vscode.Disposable;
  #text = "";

  readonly onDidChange = this.#changed.event;

  constructor() {
    this.#registration = vscode.workspace.registerTextDocumentContentProvider(this.#uri.scheme, this);
  }

  dispose(): void {
    this.#registration.dispose();
    this.#changed.dispose();
  }

  provideTextDocumentContent(): string {
    return this.#text;
  }

  /** Shows the current counts beside the text. */
  async show(server: Server): Promise<void> {
    const client = server.beyond;
    if (typeof client === "string") {
      void vscode.window.showWarningMessage(`dgemma: ${client}`);
      return;
    }
    this.#text = statsPage(await client.sendRequest(STATS, {}));
    this.#changed.fire(this.#uri);
    const document = await vscode.workspace.openTextDocument(this.#uri);
    await vscode.window.showTextDocument(document, { viewColumn: vscode.ViewColumn.Beside, preview: true });
  }
}
