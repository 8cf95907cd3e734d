"""Where holes are cut: the text files of a folder, or the held-out split of a corpus; always in the same order.

What the corpus filters call too small or large, generated, data or a copy is left out. Tests and benchmarks, which the
filters reject for training, are kept: nothing is learnt from them here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dgemma_engine.errors import FormatError, WrongUsage
from dgemma_engine.tools.corpus.duplicates import Duplicates
from dgemma_engine.tools.corpus.filters import MAX_BYTES, Rejection, rejection
from dgemma_engine.tools.evaluation.holes.task import PYTHON

LANGUAGES = {
    ".py": PYTHON, ".pyi": PYTHON, ".js": "javascript", ".mjs": "javascript", ".jsx": "javascriptreact",
    ".ts": "typescript", ".tsx": "typescriptreact", ".java": "java", ".kt": "kotlin", ".go": "go", ".rs": "rust",
    ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp", ".hpp": "cpp", ".cs": "csharp", ".rb": "ruby", ".php": "php",
    ".swift": "swift", ".scala": "scala", ".lua": "lua", ".sh": "shellscript", ".pl": "perl", ".r": "r",
    ".ex": "elixir", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml",
}  # fmt: skip
"""LSP language ids by the ending of a file's name."""
SKIPPED_FOLDERS = frozenset({"node_modules", "site-packages", "__pycache__"})
"""Names of folders whose files others wrote."""
_SKIPPED_FILES = frozenset({Rejection.SIZE, Rejection.GENERATED, Rejection.DATA})


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file in which holes are cut.

    Attributes:
        name: names it in task ids.
        path: for the model to see, relative; empty where it is not known.
        language: LSP language id; empty where it is not known.
        text: all of it.
    """

    name: str
    path: str
    language: str
    text: str


def read_sources(folder: Path, globs: Sequence[str]) -> list[SourceFile]:
    """Reads a source tree, or the held-out split of a corpus.

    Args:
        folder: a source tree, or what `dgemma-engine corpus` wrote.
        globs: which files of a tree to take, e.g. `*.py`; at any depth.

    Raises:
        WrongUsage: it is no folder.
        FormatError: there is no usable file.
        TrainingError: the corpus cannot be read.
    """
    if not folder.is_dir():
        raise WrongUsage(f"{folder}: is no folder; name a source tree or a corpus")
    if is_corpus(folder):
        return _held_out(folder)
    files = _tree(folder, globs)
    if not files:
        raise FormatError(f"{folder}: holds no usable file like {' or '.join(globs)}; choose others with --glob")
    return files


def is_corpus(folder: Path) -> bool:
    """Whether `dgemma-engine corpus` wrote this folder."""
    return (folder / "manifest.json").exists() and (folder / "held_out.utf8").exists()


def _held_out(folder: Path) -> list[SourceFile]:
    from dgemma_engine.tools.corpus.corpus import Corpus

    corpus = Corpus.load(folder, "held_out")
    return [
        SourceFile(name=f"held_out-{index}", path="", language=PYTHON, text=corpus.text(index))
        for index in range(len(corpus))
    ]


def _tree(folder: Path, globs: Sequence[str]) -> list[SourceFile]:
    duplicates = Duplicates()
    found = {path.relative_to(folder).as_posix(): path for glob in globs for path in folder.rglob(glob)}
    files: list[SourceFile] = []
    for name in sorted(found):
        text = _usable_text(found[name], PurePosixPath(name))
        if text is not None and duplicates.rejection(text) is None:
            language = LANGUAGES.get(found[name].suffix.lower(), "")
            files.append(SourceFile(name=name, path=name, language=language, text=text))
    return files


def _usable_text(path: Path, relative: PurePosixPath) -> str | None:
    if any(part.startswith(".") or part in SKIPPED_FOLDERS for part in relative.parts):
        return None
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    # Binary data may happen to be UTF-8; a NUL gives it away.
    return None if "\0" in text or rejection(relative, text) in _SKIPPED_FILES else text
