// Settings that decide where text goes: told to the server when it starts, and never through the workspace's configuration. Pure.

/** Keys within the section, as in dgemma_lsp/settings/reader.py. */
export const PERSONAL_KEYS: readonly string[] = ["engine.caFile", "engine.keyFile", "engine.plainHttpHosts", "engine.url"];

/** Returns settings without the personal ones; the server refuses those from anything that a workspace may have written. */
export function withoutPersonal(settings: Record<string, unknown>): Record<string, unknown> {
  const engine = settings["engine"];
  if (typeof engine !== "object" || engine === null) {
    return settings;
  }
  const kept = Object.entries(engine).filter(([key]) => !PERSONAL_KEYS.includes(`engine.${key}`));
  return { ...settings, engine: Object.fromEntries(kept) };
}
