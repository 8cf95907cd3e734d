// A long request to the server: its progress as a notification that can cancel it.

import { setTimeout as sleep } from "node:timers/promises";
import * as vscode from "vscode";
import { type LanguageClient, type WorkDoneProgressBegin, WorkDoneProgress, type WorkDoneProgressReport } from "vscode-languageclient/node";

/** Time without a progress bar; a refusal comes sooner. */
const MOMENT_MS = 300;

/** Returns the answer; undefined where the user cancelled the request. A short request shows no progress. */
export async function askWithProgress<Answer>(
  client: LanguageClient,
  method: string,
  question: object,
  title: string,
): Promise<Answer | undefined> {
  const taken = new vscode.CancellationTokenSource();
  const workDoneToken = crypto.randomUUID();
  let bar: vscode.Progress<{ message?: string; increment?: number }> | undefined;
  let shown = 0;
  let reached = 0;
  let said: string | undefined;
  const show = () => {
    const increment = Math.max(reached - shown, 0);
    shown += bar ? increment : 0;
    bar?.report(said === undefined ? { increment } : { increment, message: said });
  };
  const listener = client.onProgress(WorkDoneProgress.type, workDoneToken, (value) => {
    if (value.kind !== "end") {
      const { percentage, message } = value as WorkDoneProgressBegin | WorkDoneProgressReport;
      reached = percentage ?? reached;
      said = message ?? said;
      show();
    }
  });
  const answer = client.sendRequest<Answer>(method, { ...question, workDoneToken }, taken.token);
  const options = { location: vscode.ProgressLocation.Notification, title, cancellable: true };
  try {
    if ((await Promise.race([answer, sleep(MOMENT_MS)])) === undefined) {
      await vscode.window.withProgress(options, (progress, token) => {
        bar = progress;
        show(); // what came before there was a bar
        token.onCancellationRequested(() => taken.cancel());
        return answer;
      });
    }
    return taken.token.isCancellationRequested ? undefined : await answer;
  } catch (error) {
    if (taken.token.isCancellationRequested) {
      return undefined;
    }
    throw error;
  } finally {
    listener.dispose();
    taken.dispose();
  }
}
