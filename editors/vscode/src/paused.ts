// Which setting pauses a document, and the list of languages with one added or removed. Pure.

/** Returns which setting pauses a document of a language; undefined where none does. */
export function pausedBy(
  enabled: boolean,
  pausedLanguages: readonly string[],
  languageId: string | undefined,
): "workspace" | "language" | undefined {
  if (!enabled) {
    return "workspace";
  }
  return languageId !== undefined && pausedLanguages.some((paused) => isSame(paused, languageId)) ? "language" : undefined;
}

/** Returns the list with the language added, or without it where it was in. */
export function toggled(pausedLanguages: readonly string[], languageId: string): string[] {
  return pausedLanguages.some((paused) => isSame(paused, languageId))
    ? pausedLanguages.filter((paused) => !isSame(paused, languageId))
    : [...pausedLanguages, languageId];
}

// As the server compares them (dgemma_lsp/settings/language_ids.py): without case, and by what people call a language.
const IDS: Readonly<Record<string, string>> = {
  bib: "bibtex",
  "c++": "cpp",
  cxx: "cpp",
  cplusplus: "cpp",
  "c#": "csharp",
  cs: "csharp",
  docker: "dockerfile",
  containerfile: "dockerfile",
  "f#": "fsharp",
  gitcommit: "git-commit",
  gitrebase: "git-rebase",
  golang: "go",
  js: "javascript",
  jsx: "javascriptreact",
  tex: "latex",
  make: "makefile",
  md: "markdown",
  objc: "objective-c",
  objectivec: "objective-c",
  "objc++": "objective-cpp",
  objcpp: "objective-cpp",
  "objective-c++": "objective-cpp",
  raku: "perl6",
  text: "plaintext",
  txt: "plaintext",
  plain: "plaintext",
  ps1: "powershell",
  pwsh: "powershell",
  py: "python",
  python3: "python",
  rb: "ruby",
  rs: "rust",
  bash: "shellscript",
  ksh: "shellscript",
  sh: "shellscript",
  shell: "shellscript",
  zsh: "shellscript",
  ts: "typescript",
  tsx: "typescriptreact",
  visualbasic: "vb",
  "vb.net": "vb",
  yml: "yaml",
};

function canonicalId(name: unknown): string {
  // A setting that the user wrote by hand may hold anything.
  const folded = String(name).trim().toLowerCase();
  return Object.hasOwn(IDS, folded) ? IDS[folded]! : folded;
}

function isSame(name: unknown, languageId: string): boolean {
  return canonicalId(name) === canonicalId(languageId);
}
