// Files that VS Code treats as large: in some it draws no suggestion, others it does not show to extensions.

import * as vscode from "vscode";

// `LARGE_FILE_LINE_COUNT_THRESHOLD` and `LARGE_FILE_SIZE_THRESHOLD` of VS Code's textModel.ts. Above one of them ghost text
// is not drawn, yet Tab takes it (seen in 1.139).
const MOST_LINES = 300_000;
const MOST_CHARS = 20 * 1024 * 1024;

const NOT_DRAWN = "VS Code draws no suggestions in a file of more than 300,000 lines or 20 MB; nothing is offered here.";
const NOT_SEEN = "VS Code does not show this file to extensions, it may be too large";
const NO_EDITOR = "there is no text editor to work in; put the cursor into one.";

/** Returns why no suggestion is made in a document; undefined where VS Code would draw it. */
export function whyNotDrawn(document: vscode.TextDocument): string | undefined {
  if (!vscode.workspace.getConfiguration("editor", document).get("largeFileOptimizations", true)) {
    return undefined;
  }
  const chars = () => document.offsetAt(new vscode.Position(document.lineCount, 0));
  return document.lineCount > MOST_LINES || chars() > MOST_CHARS ? NOT_DRAWN : undefined;
}

/** Returns why nothing is offered where the user is, as far as that is VS Code's choice. */
export function whySilentHere(): string | undefined {
  const editor = vscode.window.activeTextEditor;
  return editor === undefined ? (isTextTab() ? `${NOT_SEEN}; nothing is offered here.` : undefined) : whyNotDrawn(editor.document);
}

/** Returns why there is no editor to work in. */
export function whyNoEditor(): string {
  return isTextTab() ? `${NOT_SEEN}; nothing was changed.` : NO_EDITOR;
}

function isTextTab(): boolean {
  return vscode.window.tabGroups.activeTabGroup.activeTab?.input instanceof vscode.TabInputText;
}
