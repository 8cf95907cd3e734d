// The chosen model where it is not fetched yet: offered once, and fetched by the server, with its progress.

import * as vscode from "vscode";
import type { LanguageClient } from "vscode-languageclient/node";
import { DECLINE_MODEL, FETCH_MODEL, type FetchAnswer, type MissingModel } from "./protocol.ts";
import { askWithProgress } from "./serverProgress.ts";

const NO = "No, Don't Ask Again";

/** Asks the user whether to fetch a model; the server stores a refusal, for other windows and editors too. */
export async function offerModel(client: LanguageClient, model: MissingModel): Promise<void> {
  const yes = `Fetch It (${(model.numBytes / 1e6).toFixed(0)} MB)`;
  const question = `dgemma: the model ${model.name} (${model.title}, ${model.licence}) is not there yet.`;
  const chosen = await vscode.window.showInformationMessage(question, yes, NO);
  if (chosen === yes) {
    await vscode.commands.executeCommand("dgemma.getModel");
  } else if (chosen === NO) {
    await client.sendRequest(DECLINE_MODEL, { name: model.name });
  }
}

/** Fetches the model that the settings choose; `client` is a sentence where there is none. */
export async function fetchModel(client: LanguageClient | string): Promise<void> {
  if (typeof client === "string") {
    void vscode.window.showWarningMessage(`dgemma: ${client}`);
    return;
  }
  const answer = await askWithProgress<FetchAnswer>(client, FETCH_MODEL, {}, "dgemma: fetching the model");
  const message = answer?.message ?? "the downloaded part is kept; the same command continues the download.";
  void vscode.window.showInformationMessage(`dgemma: ${message}`);
}
