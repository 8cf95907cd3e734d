// Pages that the user asks for: the doctor's report and the statistics of suggestions.

import * as vscode from "vscode";
import { because } from "./candidates.ts";
import { doctorReport } from "./doctor.ts";
import { STATS } from "./protocol.ts";
import type { Server } from "./server.ts";
import { settingsAtStart } from "./settings.ts";
import { statsPage } from "./statsPage.ts";

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
  await vscode.window.withProgress({ location: vscode.ProgressLocation.Window, title: "dgemma doctor" }, async () => {
    log.appendLine(await doctorReport(candidate, settingsAtStart(), home));
  });
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
