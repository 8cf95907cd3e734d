"""Text of neighbouring files that a hole's surroundings have most identifiers in common with.

Stands in for what an editor would send of other open files. The hole's own middle plays no part in the choice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from dgemma_engine.protocol.messages import Snippet
from dgemma_engine.tools.evaluation.holes.source_files import SourceFile

_WINDOW_LINES = 60
_AROUND_LINES = 30
_IDENTIFIER = re.compile(r"[^\W\d]\w{2,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _SnippetWindow:
    path: str
    text: str
    identifiers: frozenset[str]


class Neighbours:
    """Files by folder, each cut into overlapping windows once.

    Args:
        files: all files that may give a snippet.
    """

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self._folders: dict[PurePosixPath, list[list[_SnippetWindow]]] = {}
        for file in files:
            self._folders.setdefault(PurePosixPath(file.path).parent, []).append(_windows(file))

    def snippets(self, path: str, prefix: str, suffix: str, count: int) -> tuple[Snippet, ...]:
        """Returns the best window of each of at most `count` other files of the folder, most relevant last.

        Args:
            path: of the file with the hole; it gives no snippet itself.
            prefix: text before the hole.
            suffix: text after it.
            count: most files.
        """
        around = "\n".join([*prefix.splitlines()[-_AROUND_LINES:], *suffix.splitlines()[:_AROUND_LINES]])
        wanted = _identifiers(around)
        best: list[tuple[float, str, _SnippetWindow]] = []
        for windows in self._folders.get(PurePosixPath(path).parent, []):
            if windows and windows[0].path != path:
                score, window = max(
                    ((_jaccard(wanted, window.identifiers), window) for window in windows), key=lambda pair: pair[0]
                )
                if score > 0:
                    best.append((score, window.path, window))
        best.sort(key=lambda item: item[:2])
        return tuple(Snippet(path=window.path, text=window.text) for _, _, window in best[-count:]) if count else ()


def _windows(file: SourceFile) -> list[_SnippetWindow]:
    lines = file.text.splitlines(keepends=True)
    starts = range(0, max(1, len(lines) - _WINDOW_LINES // 2), _WINDOW_LINES // 2)
    texts = ["".join(lines[start : start + _WINDOW_LINES]) for start in starts]
    return [_SnippetWindow(path=file.path, text=text, identifiers=_identifiers(text)) for text in texts]


def _identifiers(text: str) -> frozenset[str]:
    return frozenset(_IDENTIFIER.findall(text))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    union = len(one | other)
    return len(one & other) / union if union else 0.0
