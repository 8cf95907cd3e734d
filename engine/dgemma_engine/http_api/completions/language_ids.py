"""The path of a document -> its language's LSP id: clients of HTTP send a file name at most."""

from __future__ import annotations

from pathlib import PurePath

_IDS = {
    "c": "c", "cc": "cpp", "cpp": "cpp", "cs": "csharp", "css": "css", "cxx": "cpp", "go": "go",
    "h": "c", "hpp": "cpp", "html": "html", "java": "java", "js": "javascript", "json": "json", 
    "bash": "shellscript", "jsx": "javascriptreact",
    "kt": "kotlin", "lua": "lua", "md": "markdown", "mjs": "javascript", "php": "php", "pl": "perl", "py": "python",
    "pyi": "python", "rb": "ruby", "rs": "rust", "scala": "scala", "sh": "shellscript", "sql": "sql", "swift": "swift",
    "toml": "toml", "ts": "typescript", "tsx": "typescriptreact", "yaml": "yaml", "yml": "yaml",
}  # fmt: skip


def language_of(path: str) -> str:
    """Returns the LSP id of the language that the path's suffix names; empty for one that is not known."""
    return _IDS.get(PurePath(path).suffix.removeprefix(".").lower(), "")
