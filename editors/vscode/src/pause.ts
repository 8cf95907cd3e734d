// What is paused for the active document, and the commands that change it: two settings of the server.

import * as vscode from "vscode";
import { pausedBy, toggled } from "./paused.ts";
import { changeSetting, SECTION, setting } from "./settings.ts";

/** Returns which pause holds in the active document. */
export function pausedHere(): "workspace" | "language" | undefined {
  return pausedBy(setting("enabled", true), setting<string[]>("pausedLanguages", []), activeLanguage());
}

/** Returns the language of the active document. */
export function activeLanguage(): string | undefined {
  return vscode.window.activeTextEditor?.document.languageId;
}

/** Pauses or resumes the language of the active document everywhere, or in a workspace that has a list of its own. */
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

/** Pauses or resumes the workspace; without a folder, all windows. */
export async function toggleWorkspace(): Promise<void> {
  const { ConfigurationTarget, workspace } = vscode;
  const target = workspace.workspaceFolders ? ConfigurationTarget.Workspace : ConfigurationTarget.Global;
  await changeSetting("enabled", !setting("enabled", true), target);
}
