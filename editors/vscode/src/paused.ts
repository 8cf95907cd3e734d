// Which of the user's choices silence a document, and the list of languages with one added or taken away. Pure.

/** Returns what keeps a document of a language silent; undefined where nothing does. */
export function pausedBy(
  enabled: boolean,
  pausedLanguages: readonly string[],
  languageId: string | undefined,
): "workspace" | "language" | undefined {
  if (!enabled) {
    return "workspace";
  }
  return languageId !== undefined && pausedLanguages.includes(languageId) ? "language" : undefined;
}

/** Returns the list with the language added, or without it where it was in. */
export function toggled(pausedLanguages: readonly string[], languageId: string): string[] {
  return pausedLanguages.includes(languageId)
    ? pausedLanguages.filter((paused) => paused !== languageId)
    : [...pausedLanguages, languageId];
}
