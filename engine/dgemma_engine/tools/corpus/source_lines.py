"""Source files of many languages, one JSON object a line: the corpus that adapters are trained on.

A line holds `lang`, `name` (of the file), `package`, `licence` and `text`. Held-out packages are those of `held_out`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from dgemma_engine.errors import TrainingError, WrongUsage
from dgemma_engine.tools.corpus.held_out import is_held_out


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLine:
    """One file.

    Attributes:
        lang: its language, in lower case.
        name: of the file, without folders.
        package: that it came with.
        licence: short name of the package's licence.
        text: all of it.
    """

    lang: str
    name: str
    package: str
    licence: str
    text: str

    @property
    def num_bytes(self) -> int:
        """Length of the text in UTF-8."""
        return len(self.text.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCorpus:
    """A corpus in memory.

    Attributes:
        train: files to learn from, by language.
        held_out: files of held-out packages, by language.
        sha256: of the file.
    """

    train: dict[str, Sequence[SourceLine]]
    held_out: dict[str, Sequence[SourceLine]]
    sha256: str

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a corpus.

        Raises:
            WrongUsage: the file does not exist.
            TrainingError: it cannot be read, is damaged, or lacks files of either part.
        """
        train, held_out = defaultdict[str, list[SourceLine]](list), defaultdict[str, list[SourceLine]](list)
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    source = _parsed(path, number, line)
                    (held_out if is_held_out(source.package) else train)[source.lang].append(source)
        except FileNotFoundError as error:
            raise WrongUsage(
                f"{path}: no such file; name a corpus, which `dgemma-engine corpus-packages` writes"
            ) from error
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise TrainingError(f"{path}: cannot be read as gzip of JSON lines ({error}); build it again") from error
        for part, content in (("to train on", train), ("held out", held_out)):
            if not content:
                raise TrainingError(f"{path}: holds no package {part}; build the corpus from more packages")
        return cls(train=dict(train), held_out=dict(held_out), sha256=sha256)


def write_corpus(path: Path, sources: Iterable[SourceLine]) -> None:
    """Writes a corpus atomically: a temporary file that is renamed.

    Raises:
        TrainingError: the disk is full or the folder cannot be written; a file that was there is untouched.
    """
    unfinished = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(unfinished, "wt", encoding="utf-8", compresslevel=6) as file:
            for source in sources:
                file.write(json.dumps(asdict(source), ensure_ascii=False) + "\n")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise TrainingError(f"{path}: cannot be written ({error}); free some space or choose another") from error


def _parsed(path: Path, number: int, line: str) -> SourceLine:
    try:
        values: dict[str, Any] = json.loads(line)
        # JSON may hold half a surrogate pair, which no tokenizer takes.
        fields = {
            name: str(values[name]).encode("utf-8", "replace").decode("utf-8")
            for name in ("lang", "name", "package", "licence", "text")
        }
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}: line {number} is no source file ({error}); build the corpus again") from error
    return SourceLine(**fields)
