// Settings that only the user decides, sent when the server starts; and those that a workspace may change, sent through
// its configuration. Pure.

/** Keys within the section, as in dgemma_lsp/settings/reader.py. */
export const PERSONAL_KEYS: readonly string[] = ["engine.caFile", "engine.keyFile", "engine.plainHttpHosts", "engine.url"];

/** Keys of lists that a workspace may add to, as `WorkspaceMay.ADD` in dgemma_lsp/settings/options.py. */
export const ADDED_KEYS: readonly string[] = ["privateFiles"];

/** A setting as `WorkspaceConfiguration.inspect` returns it. */
export interface Inspected {
  defaultValue?: unknown;
  globalValue?: unknown;
  workspaceValue?: unknown;
  workspaceFolderValue?: unknown;
}

/**
 * Returns what the server starts with: of a list that a workspace may add to, the user's entries only.
 *
 * @param settings all that hold in this window.
 * @param inspect returns a key's values by who wrote them.
 */
export function forTheStart(settings: Record<string, unknown>, inspect: (key: string) => Inspected | undefined): Record<string, unknown> {
  return replaced(settings, (key) => inspect(key)?.globalValue ?? inspect(key)?.defaultValue);
}

/**
 * Returns the settings that a workspace may change: none of the user's, which the server refuses, and its own entries of lists.
 *
 * @param settings all that hold in this window.
 * @param inspect returns a key's values by who wrote them.
 */
export function forTheWorkspace(settings: Record<string, unknown>, inspect: (key: string) => Inspected | undefined): Record<string, unknown> {
  return replaced(withoutPersonal(settings), (key) => inspect(key)?.workspaceFolderValue ?? inspect(key)?.workspaceValue);
}

function replaced(settings: Record<string, unknown>, valueOf: (key: string) => unknown): Record<string, unknown> {
  const kept = Object.entries(settings).filter(([key]) => !ADDED_KEYS.includes(key));
  const added = ADDED_KEYS.map((key) => [key, valueOf(key)]).filter(([, value]) => value !== undefined);
  return Object.fromEntries([...kept, ...added]);
}

function withoutPersonal(settings: Record<string, unknown>): Record<string, unknown> {
  const engine = settings["engine"];
  if (typeof engine !== "object" || engine === null) {
    return settings;
  }
  const kept = Object.entries(engine).filter(([key]) => !PERSONAL_KEYS.includes(`engine.${key}`));
  return { ...settings, engine: Object.fromEntries(kept) };
}
