"""Which files of a package are source text of a language: by their endings, without files that a build generated."""

from __future__ import annotations

from pathlib import PurePosixPath
from types import MappingProxyType

ENDINGS = MappingProxyType(
    {
        "python": (".py",),
        "javascript": (".js", ".mjs", ".cjs", ".jsx"),
        "typescript": (".ts", ".tsx"),
        "go": (".go",),
        "rust": (".rs",),
        "java": (".java",),
        "cpp": (".c", ".cc", ".cpp", ".h", ".hpp", ".ipp"),
    }
)
"""Endings of file names by language."""

_BUILT_FOLDERS = frozenset(
    {"build", "bundle", "bundles", "dist", "generated", "locale", "min", "node_modules", "third_party", "umd"}
)
_BUILT_ENDINGS = (".d.ts", ".min.js", ".min.mjs", ".bundle.js", "_pb2.py", ".pb.go", ".pb.h", ".pb.cc")


def is_source(path: PurePosixPath, lang: str) -> bool:
    """Whether a file is source text that a person wrote, as far as its path tells.

    Args:
        path: in its package.
        lang: a key of `ENDINGS`.
    """
    return path.name.lower().endswith(ENDINGS[lang]) and not is_built(path)


def is_built(path: PurePosixPath) -> bool:
    """Whether a build generated a file, as far as its path tells.

    Args:
        path: in its package.
    """
    folders = (part.lower() for part in path.parts[:-1])
    return path.name.lower().endswith(_BUILT_ENDINGS) or not _BUILT_FOLDERS.isdisjoint(folders)
