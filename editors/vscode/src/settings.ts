// The user's settings as the server wants them, and those that are this extension's own.

import * as vscode from "vscode";

export const SECTION = "dgemma";

// The server takes every key under `dgemma` for its own and warns of those that it does not know.
const OWN_GROUPS: readonly string[] = ["server", "preview"];

/** Returns a key of the section. */
export function setting<T>(key: string, otherwise: T): T {
  return vscode.workspace.getConfiguration(SECTION).get<T>(key, otherwise);
}

/** Changes a key for the workspace, or for the user. */
export async function changeSetting(key: string, value: unknown, target: vscode.ConfigurationTarget): Promise<void> {
  await vscode.workspace.getConfiguration(SECTION).update(key, value, target);
}

/** Returns the settings without this extension's own. */
export function serverSettings(): Record<string, unknown> {
  const all = vscode.workspace.getConfiguration().get<Record<string, unknown>>(SECTION, {});
  return Object.fromEntries(Object.entries(all).filter(([key]) => !OWN_GROUPS.includes(key)));
}
