// Learning a repository: the server trains an adapter for it, with progress; the result can be removed.

import * as vscode from "vscode";
import type { LanguageClient } from "vscode-languageclient/node";
import { FORGET_REPOSITORY, type ForgetAnswer, LEARN_REPOSITORY, type LearnAnswer, type LearnHint } from "./protocol.ts";
import { askWithProgress } from "./serverProgress.ts";

const LEARN = "Learn It";
const UNDO = "Undo";

/** Shows the hint that a repository can be learnt; the server sends it once. */
export async function hintLearning(hint: LearnHint): Promise<void> {
  const text = `dgemma: ${hint.message}. Learning it takes 20 minutes in the background, on this machine, and makes completions fit it better.`;
  if ((await vscode.window.showInformationMessage(text, LEARN, "Not Now")) === LEARN) {
    await vscode.commands.executeCommand("dgemma.learn", hint.uri);
  }
}

/**
 * Learns the repository of a document; `client` is a sentence where there is none.
 *
 * @param uri of a file or folder in it; by default that of the active editor.
 */
export async function learnRepository(client: LanguageClient | string, uri?: string): Promise<void> {
  if (typeof client === "string") {
    void vscode.window.showWarningMessage(`dgemma: ${client}`);
    return;
  }
  const question = { uri: uri ?? activeUri() };
  const answer = await askWithProgress<LearnAnswer>(client, LEARN_REPOSITORY, question, "dgemma: learning this repository");
  if (answer === undefined) {
    void vscode.window.showInformationMessage("dgemma: what is learnt so far is kept; the same command goes on with it.");
  } else if (!answer.installed) {
    void vscode.window.showInformationMessage(`dgemma: ${answer.message}`);
  } else if ((await vscode.window.showInformationMessage(`dgemma: ${answer.message}`, UNDO)) === UNDO) {
    await vscode.commands.executeCommand("dgemma.forget", vscode.Uri.file(answer.root).toString());
  }
}

/**
 * Removes the adapter of the repository of a document; `client` is a sentence where there is none.
 *
 * @param uri of a file or folder in it; by default that of the active editor.
 */
export async function forgetRepository(client: LanguageClient | string, uri?: string): Promise<void> {
  if (typeof client === "string") {
    void vscode.window.showWarningMessage(`dgemma: ${client}`);
    return;
  }
  const answer = await client.sendRequest<ForgetAnswer>(FORGET_REPOSITORY, { uri: uri ?? activeUri() });
  void vscode.window.showInformationMessage(`dgemma: ${answer.message}`);
}

function activeUri(): string | null {
  return vscode.window.activeTextEditor?.document.uri.toString() ?? null;
}
