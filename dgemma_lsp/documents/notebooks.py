"""The cells of the open notebooks, in their order: each is a document of its own, and its neighbours are context.

Turns a cell into the text of the code cells before and after it. Texts stay with `Documents`. Knows no protocol types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from dgemma_lsp.documents.store import Document

# What stands between two cells; notebooks keep cells without a line end after the last line.
_BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell.

    Attributes:
        uri: its document.
        is_code: whether it holds code; prose is never read as context.
    """

    uri: str
    is_code: bool


@dataclass(slots=True, kw_only=True)
class _Notebook:
    uri: str
    cells: list[Cell] = field(default_factory=list[Cell])


class Notebooks:
    """The open notebooks.

    Args:
        document: returns the newest version of a cell's document; None for one that is not open or may not be read.

    Attributes:
        holders: of each cell, the uri of the notebook that holds it.
    """

    def __init__(self, document: Callable[[str], Document | None]) -> None:
        self._document = document
        self._open: dict[str, _Notebook] = {}
        self.holders: dict[str, str] = {}

    def open(self, uri: str, cells: Iterable[Cell]) -> None:
        """Adds a notebook; replaces an open one of the same uri."""
        self.close(uri)
        self._open[uri] = _Notebook(uri=uri)
        self.splice(uri, 0, 0, cells)

    def close(self, uri: str) -> list[str]:
        """Removes a notebook; returns the uris of its cells, none where it is not open."""
        notebook = self._open.pop(uri, _Notebook(uri=uri))
        for cell in notebook.cells:
            self.holders.pop(cell.uri, None)
        return [cell.uri for cell in notebook.cells]

    def splice(self, uri: str, start: int, num_deleted: int, cells: Iterable[Cell]) -> bool:
        """Replaces cells; returns whether the notebook is open.

        Args:
            uri: the notebook.
            start: index of the first cell to replace; past the end means the end.
            num_deleted: how many cells are removed.
            cells: the cells that replace them.
        """
        if (notebook := self._open.get(uri)) is None:
            return False
        start = min(max(start, 0), len(notebook.cells))
        new, old = list(cells), notebook.cells[start : start + max(num_deleted, 0)]
        notebook.cells[start : start + len(old)] = new
        for cell in old:
            self.holders.pop(cell.uri, None)
        self.holders |= dict.fromkeys((cell.uri for cell in new), uri)
        return True

    def cells(self, uri: str) -> list[str]:
        """Returns the uris of a notebook's cells; none where it is not open."""
        return [cell.uri for cell in self._open.get(uri, _Notebook(uri=uri)).cells]

    def around(self, uri: str, *, most_before: int, most_after: int) -> tuple[str, str]:
        """Returns the text of the other code cells of the same language before and after a cell, nearest ones first.

        Args:
            uri: the cell; of any other document both texts are empty.
            most_before: characters before it after which no further cell is taken, and most of one cell.
            most_after: likewise after it.
        """
        notebook = self._open.get(self.holders.get(uri, ""))
        if notebook is None or (own := self._document(uri)) is None:
            return "", ""
        index = next(index for index, cell in enumerate(notebook.cells) if cell.uri == uri)
        before = self._texts(reversed(notebook.cells[:index]), own.language, most_before, from_end=True)
        after = self._texts(notebook.cells[index + 1 :], own.language, most_after, from_end=False)
        return "".join(text + _BETWEEN for text in reversed(before)), "".join(_BETWEEN + text for text in after)

    def _texts(self, cells: Iterable[Cell], language: str, most: int, *, from_end: bool) -> Sequence[str]:
        texts: list[str] = []
        limit = most
        for cell in cells:
            if most <= 0:
                break
            document = self._document(cell.uri) if cell.is_code else None
            if document is not None and document.language == language:
                text = document.text[-limit:] if from_end else document.text[:limit]
                texts.append(text.strip("\r\n"))
                most -= len(texts[-1])
        return texts
