// Middleware between editor and server: measures suggestions, withholds this extension's own settings, runs fills.

import * as vscode from "vscode";
import { DidChangeConfigurationNotification, type Middleware } from "vscode-languageclient/node";
import { unitsToLeaveOut } from "./astral.ts";
import { whyNotDrawn } from "./largeFile.ts";
import type { Latency } from "./latency.ts";
import type { Preview } from "./preview.ts";
import { FILL_COMMAND, type FillQuestion } from "./protocol.ts";
import type { Server } from "./server.ts";
import { SECTION, setting, settingsOfWorkspace } from "./settings.ts";

export interface Hooks {
  server(): Server;
  fill(question: FillQuestion): Promise<void>;
  /** A suggestion was shown. */
  shown(): void;
}

/** Returns the middleware. */
export function middleware(latency: Latency, preview: Preview, hooks: Hooks): Middleware {
  return {
    async provideInlineCompletionItems(document, position, context, token, next) {
      if (whyNotDrawn(document) !== undefined) {
        return []; // what is not seen must not be taken by Tab
      }
      const began = performance.now();
      const editor = vscode.window.activeTextEditor;
      const client = setting("preview.always", false) ? hooks.server().beyond : "off";
      const drawn = typeof client !== "string" && context.triggerKind === vscode.InlineCompletionTriggerKind.Automatic;
      const items =
        drawn && editor?.document === document
          ? await preview.suggest(client, editor, position, token)
          : await next(document, position, context, token);
      const offered = Array.isArray(items) ? items : (items?.items ?? []);
      for (const item of offered) {
        drawable(document, item);
      }
      if (offered.length > 0 && !token.isCancellationRequested) {
        latency.add(performance.now() - began);
        hooks.shown();
      }
      return items;
    },
    // The server has a command of its own, for editors that cannot run one.
    executeCommand: (command, args, next) =>
      command === FILL_COMMAND ? hooks.fill(args[0] as FillQuestion) : next(command, args),
    workspace: {
      configuration: (params, token, next) => {
        const answers = next(params, token);
        const ours = params.items.map(({ section }) => section === SECTION);
        return Array.isArray(answers) ? answers.map((answer, index) => (ours[index] ? settingsOfWorkspace() : answer)) : answers;
      },
      // A notification without settings makes the server ask for them, which goes through `configuration`.
      didChangeConfiguration: async () => {
        await hooks.server().client?.sendNotification(DidChangeConfigurationNotification.type, { settings: null });
      },
    },
  };
}

/** Removes text that is already there from the beginning of a suggestion that the editor would not draw otherwise. */
function drawable(document: vscode.TextDocument, item: vscode.InlineCompletionItem): void {
  if (item.range === undefined || typeof item.insertText !== "string") {
    return;
  }
  const left = unitsToLeaveOut(document.getText(item.range), item.insertText);
  item.range = new vscode.Range(item.range.start.translate(0, left), item.range.end);
  item.insertText = item.insertText.slice(left);
}
