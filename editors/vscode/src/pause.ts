// What is paused for the document at hand, and the commands that change it: two settings of the server's.

import * as vscode from "vscode";
import { pausedBy, toggled } from "./paused.ts";
import { changeSetting, SECTION, setting } from "./settings.ts";

/** Returns what keeps the active document silent. */
export function pausedHere(): "workspace" | "language" | undefined {
  return pausedBy(setting("enabled", true), setting<string[]>("pausedLanguages", []), activeLanguage());
}

/** Returns the language of the active document. */
export function activeLanguage(): string | undefined {
  return vscode.window.activeTextEditor?.document.languageId;
}

/** Pauses the language of the active document everywhere, or lets it go on; in the workspace where that has a list of its own. */
export async function toggleLanguage(): Promise<void> {
  const languageId = activeLanguage();
  if (languageId === undefined) {
    void vscode.window.showInformationMessage("dgemma: open a file first; its language is what is paused.");
    return;
  }
  const languages = toggled(setting<string[]>("pausedLanguages", []), languageId);
  const { ConfigurationTarget, workspace } = vscode;
  const isOwn = workspace.getConfiguration(SECTION).inspect("pausedLanguages")?.workspaceValue !== undefined;
  await changeSetting("pausedLanguages", languages, isOwn ? ConfigurationTarget.Workspace : ConfigurationTarget.Global);
}

/** Pauses the workspace, or lets it go on; without a folder, all windows. */
export async function toggleWorkspace(): Promise<void> {
  const { ConfigurationTarget, workspace } = vscode;
  const target = workspace.workspaceFolders ? ConfigurationTarget.Workspace : ConfigurationTarget.Global;
  await changeSetting("enabled", !setting("enabled", true), target);
}
