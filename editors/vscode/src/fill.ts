// The command that fills a selection: asks the server, lets the user choose, applies one edit that one undo reverts.

import { stat } from "node:fs/promises";
import * as vscode from "vscode";
import { whyNoEditor } from "./largeFile.ts";
import { FILL, type FillAnswer, type FillCandidate, type FillQuestion } from "./protocol.ts";
import type { Server } from "./server.ts";
import { askWithProgress } from "./serverProgress.ts";

/** Fills the range of a code action or the selection; where nothing is filled, one sentence says why, unless the user cancelled. */
export async function fill(server: Server, question: FillQuestion | undefined): Promise<void> {
  const problem = await fillOrWhyNot(server, question);
  if (problem) {
    void vscode.window.showWarningMessage(`dgemma: ${problem}`);
  }
}

async function fillOrWhyNot(server: Server, asked: FillQuestion | undefined): Promise<string | undefined> {
  const client = server.beyond;
  if (typeof client === "string") {
    return client;
  }
  const question = asked ?? selected();
  if (typeof question === "string") {
    return question;
  }
  const uri = client.protocol2CodeConverter.asUri(question.textDocument.uri);
  const document = vscode.workspace.textDocuments.find((open) => open.uri.toString() === uri.toString());
  if (document === undefined) {
    return "the document is not open any more; nothing was changed.";
  }
  if (await isReadOnly(uri)) {
    return "the file is read-only; nothing was changed.";
  }
  let answer: FillAnswer | undefined;
  try {
    answer = await askWithProgress<FillAnswer>(client, FILL, question, "dgemma: filling");
  } catch (error) {
    return `the selection could not be filled (${error instanceof Error ? error.message : String(error)}).`;
  }
  const candidate = answer && (answer.candidates.length > 0 ? await choose(answer.candidates) : undefined);
  if (answer === undefined || candidate === undefined) {
    return answer?.candidates.length === 0 ? answer.message : undefined;
  }
  return apply(document, answer.version, client.protocol2CodeConverter.asRange(answer.range), candidate.newText);
}

/** Returns the selection as a request, or why it is none; the server decides what an empty one means. */
function selected(): FillQuestion | string {
  const cells = vscode.window.activeNotebookEditor?.selections ?? [];
  if (cells.reduce((number, { start, end }) => number + end - start, 0) > 1) {
    return "the selection spans several notebook cells; select within one cell.";
  }
  const editor = vscode.window.activeTextEditor;
  if (editor === undefined) {
    return whyNoEditor();
  }
  const { document, selection } = editor;
  const place = ({ line, character }: vscode.Position) => ({ line, character });
  return {
    textDocument: { uri: document.uri.toString(), version: document.version },
    range: { start: place(selection.start), end: place(selection.end) },
    kind: "selection",
  };
}

async function isReadOnly(uri: vscode.Uri): Promise<boolean> {
  if (vscode.workspace.fs.isWritableFileSystem(uri.scheme) === false) {
    return true;
  }
  try {
    const { permissions } = await vscode.workspace.fs.stat(uri);
    const nobodyMayWrite = uri.scheme === "file" && ((await stat(uri.fsPath)).mode & 0o222) === 0;
    return permissions === vscode.FilePermission.Readonly || nobodyMayWrite;
  } catch {
    return false; // not on a disk: a new file, a notebook's cell
  }
}

async function choose(offered: FillCandidate[]): Promise<FillCandidate | undefined> {
  if (offered.length === 1) {
    return offered[0];
  }
  const items = offered.map((candidate) => {
    const item = { label: candidate.label, description: `${Math.round(candidate.score * 100)} %`, candidate };
    const lines = candidate.newText.trim().split("\n");
    return lines.length > 1 ? { ...item, detail: lines.slice(0, 4).join(" ⏎ ").slice(0, 200) } : item;
  });
  const options = { title: "dgemma: fill with", placeHolder: "Best first; Escape changes nothing", ignoreFocusOut: true };
  return (await vscode.window.showQuickPick(items, options))?.candidate;
}

/** Replaces a range as one undo step; returns why not, where the document has changed since the request. */
async function apply(
  document: vscode.TextDocument,
  version: number,
  range: vscode.Range,
  newText: string,
): Promise<string | undefined> {
  const changed = "the document changed while the fill was computed; nothing was changed, select and fill again.";
  if (document.isClosed || document.version !== version) {
    return changed;
  }
  const editor = await vscode.window.showTextDocument(document);
  const done = await editor.edit((builder) => builder.replace(range, newText), { undoStopBefore: true, undoStopAfter: true });
  // In a read-only editor VS Code reports success and changes nothing.
  if (document.version === version) {
    return "the editor is read-only; nothing was changed.";
  }
  return done ? undefined : changed;
}
