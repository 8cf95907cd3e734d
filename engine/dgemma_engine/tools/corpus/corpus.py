"""A corpus on disk: source files of both splits end to end, a manifest of where they come from, and their tokenizer.

`build_corpus` makes the folder, `Corpus.load` opens one split of it. Texts are kept, not token ids: prefix, middle and
suffix of a hole are tokenised apart, as an editor will, and where the hole is changes from epoch to epoch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from dgemma_engine.errors import TrainingError, WrongUsage
from dgemma_engine.tools.corpus.bpe import train_bpe
from dgemma_engine.tools.corpus.duplicates import Duplicates
from dgemma_engine.tools.corpus.filters import MAX_BYTES, Rejection, rejection
from dgemma_engine.tools.corpus.held_out import HELD_OUT_SHARE, is_held_out
from dgemma_engine.tools.corpus.sources import STANDARD_LIBRARY, Package
from dgemma_engine.tools.corpus.stable_hash import stable_hash

MANIFEST = "manifest.json"
Split = Literal["train", "held_out"]

_BPE_SAMPLE_CHARACTERS = 40_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestEntry:
    """What the manifest says of one package: after filtering, under which licence, in which split."""

    package: str
    version: str
    licence: str
    split: Split
    files: int
    bytes: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """One split of a corpus.

    Attributes:
        data: UTF-8 of all files end to end, memory-mapped.
        ends: where each file ends.
    """

    data: NDArray[np.uint8]
    ends: NDArray[np.int64]

    @classmethod
    def load(cls, folder: Path, split: Split) -> Self:
        """Opens one split.

        Raises:
            WrongUsage: the folder does not exist, or holds no corpus.
            TrainingError: the corpus cannot be read, or the split is empty.
        """
        try:
            ends = np.load(folder / f"{split}.npy")
            if len(ends) == 0:
                raise TrainingError(f"{folder}: its {split} split is empty; build the corpus from more packages")
            return cls(data=np.memmap(folder / f"{split}.utf8", dtype=np.uint8, mode="r"), ends=ends)
        except FileNotFoundError as error:
            raise WrongUsage(f"{folder}: no corpus is there; run: dgemma-engine corpus {folder}") from error
        except OSError as error:
            raise TrainingError(f"{folder}: no corpus ({error}); run: dgemma-engine corpus {folder}") from error

    def __len__(self) -> int:
        return len(self.ends)

    def text(self, index: int) -> str:
        """Returns one file."""
        start = int(self.ends[index - 1]) if index else 0
        return self.data[start : int(self.ends[index])].tobytes().decode("utf-8")

    def at_byte(self, offset: int) -> int:
        """Returns the index of the file that holds a byte: files drawn by byte are drawn by size."""
        return int(np.searchsorted(self.ends, offset, side="right"))

    @property
    def num_bytes(self) -> int:
        """Size of the split."""
        return int(self.ends[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusReport:
    """What a build kept and left out."""

    entries: tuple[ManifestEntry, ...]
    rejected: dict[Rejection, int]


def build_corpus(
    packages: Iterable[Package],
    folder: Path,
    *,
    vocab_size: int,
    held_out_share: float = HELD_OUT_SHARE,
    max_package_bytes: int = 8_000_000,
) -> CorpusReport:
    """Writes a corpus folder with its tokenizer.

    Args:
        packages: where the files come from.
        folder: made if missing; a corpus in it is replaced.
        vocab_size: of the tokenizer.
        held_out_share: share of the packages that is kept whole for evaluation; chosen by a hash of the name.
        max_package_bytes: most text that one package may give, in UTF-8; small is diverse, large is all there is.

    Raises:
        TrainingError: no file could be used, the files are too few for the vocabulary, or the folder cannot be written
            or holds something other than a corpus.
    """
    _require_replaceable(folder)
    ordered = sorted(packages, key=lambda package: (_split(package.name, held_out_share) == "held_out", package.name))
    duplicates, rejected = Duplicates(), Counter[Rejection]()
    # The train split is read first: a copy of a held-out file that some other package carries is then left out of the
    # evaluation, not learnt from it.
    texts = {package.name: list(_usable_texts(package, duplicates, rejected, max_package_bytes)) for package in ordered}
    splits: dict[Split, list[Package]] = {"train": [], "held_out": []}
    for package in ordered:
        if texts[package.name]:
            splits[_split(package.name, held_out_share)].append(package)
    if not splits["train"]:
        raise TrainingError("no Python files under a permissive licence were found; add folders with --site")
    tokenizer = train_bpe(
        _sample(list(chain.from_iterable(texts[package.name] for package in splits["train"]))), vocab_size
    )
    entries = tuple(
        _entry(package, split, texts[package.name], tokenizer) for split in splits for package in splits[split]
    )
    report = CorpusReport(entries=entries, rejected=dict(rejected))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split, members in splits.items():
            _write_split(folder, split, chain.from_iterable(texts[package.name] for package in members))
        tokenizer.save(str(folder / "tokenizer.json"))
        manifest: dict[str, Any] = {
            "packages": [asdict(entry) for entry in entries],
            "rejected": {reason.value: count for reason, count in sorted(rejected.items())},
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written ({error}); free some space or choose another") from error
    return report


def _require_replaceable(folder: Path) -> None:
    """Refuses a folder of something else: a model has a `tokenizer.json`, too."""
    try:
        if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
            raise TrainingError(f"{folder}: is not empty and holds no corpus; name a new folder")
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be read ({error.strerror}); choose another") from error


def _split(name: str, held_out_share: float) -> Split:
    if name == STANDARD_LIBRARY:
        return "train"
    return "held_out" if is_held_out(name, held_out_share) else "train"


def _usable_texts(
    package: Package, duplicates: Duplicates, rejected: Counter[Rejection], max_bytes: int
) -> Iterator[str]:
    num_bytes = 0
    # In the order of a hash, so that a package beyond its share gives files from all over it.
    for path in sorted(package.paths, key=lambda path: stable_hash(path.name + str(len(path.parts)))):
        try:
            if path.stat().st_size > MAX_BYTES:
                rejected[Rejection.SIZE] += 1
                continue
            text = path.read_bytes().decode("utf-8-sig")
        except OSError:
            continue
        except UnicodeDecodeError:
            rejected[Rejection.ENCODING] += 1
            continue
        reason = rejection(path, text)
        size = len(text.encode())
        if reason is None and num_bytes + size > max_bytes:
            reason = Rejection.SHARE
        reason = reason or duplicates.rejection(text)
        if reason is not None:
            rejected[reason] += 1
            continue
        num_bytes += size
        yield text


def _sample(texts: list[str]) -> Iterator[str]:
    """Yields every n-th text, so that about the sample's size of characters comes out."""
    step = max(1, sum(map(len, texts)) // _BPE_SAMPLE_CHARACTERS)
    yield from texts[::step]


def _entry(package: Package, split: Split, texts: list[str], tokenizer: Tokenizer) -> ManifestEntry:
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return ManifestEntry(
        package=package.name,
        version=package.version,
        licence=package.licence,
        split=split,
        files=len(texts),
        bytes=sum(len(text.encode()) for text in texts),
        tokens=sum(len(encoding) for encoding in encodings),
    )


def _write_split(folder: Path, split: Split, texts: Iterable[str]) -> None:
    with (folder / f"{split}.utf8").open("wb") as file:
        sizes = [file.write(text.encode("utf-8")) for text in texts]
    np.save(folder / f"{split}.npy", np.array(list(accumulate(sizes)), dtype=np.int64))
