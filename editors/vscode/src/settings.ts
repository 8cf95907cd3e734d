// The user's settings in the server's form, and those of this extension.

import * as vscode from "vscode";
import { forTheStart, forTheWorkspace, type Inspected } from "./personal.ts";

export const SECTION = "dgemma";

// The server reads every key under `dgemma` and warns of unknown ones.
const OWN_GROUPS: readonly string[] = ["server", "preview"];

/** Returns the value of a key of the section. */
export function setting<T>(key: string, otherwise: T): T {
  return vscode.workspace.getConfiguration(SECTION).get<T>(key, otherwise);
}

/** Changes a key for the workspace, or for the user. */
export async function changeSetting(key: string, value: unknown, target: vscode.ConfigurationTarget): Promise<void> {
  await vscode.workspace.getConfiguration(SECTION).update(key, value, target);
}

/** Returns the settings that the server starts with. */
export function settingsAtStart(): Record<string, unknown> {
  return forTheStart(serverSettings(), inspect);
}

/** Returns the settings as the workspace may change them. */
export function settingsOfWorkspace(): Record<string, unknown> {
  return forTheWorkspace(serverSettings(), inspect);
}

function inspect(key: string): Inspected | undefined {
  return vscode.workspace.getConfiguration(SECTION).inspect(key);
}

/** Returns the settings without this extension's own. */
function serverSettings(): Record<string, unknown> {
  const all = vscode.workspace.getConfiguration().get<Record<string, unknown>>(SECTION, {});
  return Object.fromEntries(Object.entries(all).filter(([key]) => !OWN_GROUPS.includes(key)));
}
