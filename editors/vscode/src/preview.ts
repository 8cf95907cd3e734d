// The canvas while it is denoised, drawn after the cursor: drafts from the server as decorations coloured by confidence.

import * as vscode from "vscode";
import type { LanguageClient } from "vscode-languageclient/node";
import { draftParts } from "./draftParts.ts";
import { DENOISE, type DenoiseAnswer, type DenoiseQuestion, DRAFT, type Draft, type DraftSpan } from "./protocol.ts";

/** How long the last draft stays after a preview that was asked for by hand. */
const LAST_SHOWN_MS = 8_000;

/** Draws one preview at a time; a new one, a key or a moved cursor removes it. */
export class Preview implements vscode.Disposable {
  // One type for all pieces: of several at one place, the editor keeps the order within a type only.
  readonly #type = vscode.window.createTextEditorDecorationType({});
  readonly #subscriptions: vscode.Disposable[];
  #running: vscode.CancellationTokenSource | undefined;
  #timer: NodeJS.Timeout | undefined;
  #said: vscode.Disposable | undefined;

  constructor() {
    this.#subscriptions = [
      vscode.workspace.onDidChangeTextDocument(({ contentChanges }) => contentChanges.length > 0 && this.clear()),
      vscode.window.onDidChangeTextEditorSelection(() => this.clear()),
      vscode.window.onDidChangeActiveTextEditor(() => this.clear()),
    ];
  }

  dispose(): void {
    this.clear();
    for (const disposable of [...this.#subscriptions, this.#type]) {
      disposable.dispose();
    }
  }

  /** Removes the preview and cancels its request. */
  clear(): void {
    clearTimeout(this.#timer);
    this.#running?.cancel();
    this.#running = undefined;
    this.#said?.dispose();
    for (const editor of vscode.window.visibleTextEditors) {
      editor.setDecorations(this.#type, []);
    }
  }

  /** Draws the denoising at the cursor, leaves the result standing, and says why if there is none. */
  async show(client: LanguageClient, editor: vscode.TextEditor): Promise<void> {
    const answer = await this.#run(client, editor, editor.selection.active);
    if (answer !== undefined && !answer.message) {
      this.#timer = setTimeout(() => this.clear(), LAST_SHOWN_MS);
      const summary = `${answer.finish.replaceAll("_", " ")} after ${answer.steps} steps, ${Math.round(answer.elapsedMs)} ms`;
      this.#say(summary);
    } else if (answer !== undefined) {
      void vscode.window.showInformationMessage(`dgemma: ${answer.message}`);
    }
  }

  /** Draws while a suggestion is made, and returns the suggestion, which replaces the drawing. */
  async suggest(
    client: LanguageClient,
    editor: vscode.TextEditor,
    position: vscode.Position,
    token: vscode.CancellationToken,
  ): Promise<vscode.InlineCompletionItem[]> {
    const stop = token.onCancellationRequested(() => this.clear());
    try {
      const answer = await this.#run(client, editor, position);
      const list = answer && (await client.protocol2CodeConverter.asInlineCompletionResult({ items: answer.items }, token));
      return list?.items ?? [];
    } finally {
      stop.dispose();
      this.#said?.dispose();
      editor.setDecorations(this.#type, []);
    }
  }

  /** Returns the answer; undefined where the request was cancelled. */
  async #run(client: LanguageClient, editor: vscode.TextEditor, position: vscode.Position): Promise<DenoiseAnswer | undefined> {
    this.clear();
    const running = new vscode.CancellationTokenSource();
    this.#running = running;
    const { code2ProtocolConverter } = client;
    const question: DenoiseQuestion = {
      textDocument: { uri: code2ProtocolConverter.asUri(editor.document.uri), version: editor.document.version },
      position: code2ProtocolConverter.asPosition(position),
      token: crypto.randomUUID(),
    };
    const listener = client.onNotification(DRAFT, (draft: Draft) => {
      if (draft.token === question.token && this.#running === running) {
        this.#draw(editor, position, draft.spans);
        const progress = `step ${draft.step} of ${draft.stepsLimit}, ${Math.round(draft.elapsedMs)} ms`;
        this.#say(progress);
      }
    });
    try {
      const answer = await client.sendRequest<DenoiseAnswer>(DENOISE, question, running.token);
      return this.#running === running ? answer : undefined;
    } catch (error) {
      if (running.token.isCancellationRequested) {
        return undefined;
      }
      throw error;
    } finally {
      listener.dispose();
      running.dispose();
    }
  }

  #say(news: string): void {
    this.#said?.dispose();
    this.#said = vscode.window.setStatusBarMessage(`dgemma: ${news}`, LAST_SHOWN_MS);
  }

  #draw(editor: vscode.TextEditor, position: vscode.Position, spans: readonly DraftSpan[]): void {
    const drawn = draftParts(spans).map(({ text, level }) => {
      const color = new vscode.ThemeColor(`dgemma.draft.${level}`);
      const after = { contentText: text, color, fontStyle: level === "settled" ? "normal" : "italic" };
      return { range: new vscode.Range(position, position), renderOptions: { after } };
    });
    editor.setDecorations(this.#type, drawn);
  }
}
