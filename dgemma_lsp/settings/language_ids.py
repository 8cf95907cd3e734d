"""A language as a user or an editor names it -> the LSP language id that stands for it. Pure.

Upper and lower case are the same, and so are the common short and display names: `C++` is `cpp`, `Shell`, `sh` and
`bash` are `shellscript`. A name that is not in the table stands for itself, since editors may have any language.
"""

from __future__ import annotations

# Language id -> its other names; `editors/vscode/src/paused.ts` holds the same.
NAMES = {
    "bibtex": ("bib",),
    "cpp": ("c++", "cxx", "cplusplus"),
    "csharp": ("c#", "cs"),
    "dockerfile": ("docker", "containerfile"),
    "fsharp": ("f#",),
    "git-commit": ("gitcommit",),
    "git-rebase": ("gitrebase",),
    "go": ("golang",),
    "javascript": ("js",),
    "javascriptreact": ("jsx",),
    "latex": ("tex",),
    "makefile": ("make",),
    "markdown": ("md",),
    "objective-c": ("objc", "objectivec"),
    "objective-cpp": ("objc++", "objcpp", "objective-c++"),
    "perl6": ("raku",),
    "plaintext": ("text", "txt", "plain"),
    "powershell": ("ps1", "pwsh"),
    "python": ("py", "python3"),
    "ruby": ("rb",),
    "rust": ("rs",),
    "shellscript": ("bash", "ksh", "sh", "shell", "zsh"),
    "typescript": ("ts",),
    "typescriptreact": ("tsx",),
    "vb": ("visualbasic", "vb.net"),
    "yaml": ("yml",),
}
_IDS = {name: language_id for language_id, names in NAMES.items() for name in names}


def canonical_id(name: str) -> str:
    """Returns the language id in lower case that a name stands for.

    Args:
        name: an LSP language id, a file type of an editor, or what people call the language.
    """
    folded = name.strip().casefold()
    return _IDS.get(folded, folded)
