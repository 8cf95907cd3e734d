"""Recent activity: documents by their last visit, names only, and edits as small diffs.

Observes the open documents at every request; a new version is a visit. Keystrokes next to each other are one edit,
which ends when a change elsewhere begins; its lines begin with `-` or `+`. Pure; uses no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from dgemma_engine.bounded_store import BoundedStore
from dgemma_engine.protocol.messages import Snippet

from dgemma_lsp.documents.store import Document, TextChange

# Languages that read each other's files.
_FAMILIES = (
    frozenset({"javascript", "javascriptreact", "typescript", "typescriptreact"}),
    frozenset({"c", "cpp", "objective-c", "objective-cpp"}),
    frozenset({"css", "scss", "less"}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentDocument:
    """A document that was open.

    Attributes:
        uri: the document.
        language: LSP language id.
        version: the newest that was seen.
    """

    uri: str
    language: str
    version: int


class RecentDocuments:
    """The documents of one editor, newest visit last.

    Args:
        num_documents: how many are kept; the default is more than are open at once.
    """

    def __init__(self, *, num_documents: int = 1_024) -> None:
        self._documents: BoundedStore[str, RecentDocument] = BoundedStore(num_documents)

    def observe(self, documents: Sequence[Document], current: str) -> list[Document]:
        """Records what is open; returns the documents that are new or have a new version.

        Args:
            documents: all that are open.
            current: uri of the one that the user is in.
        """
        changed: list[Document] = []
        for document in documents:
            known = self._documents.get(document.uri)
            if known is None or known.version != document.version:
                recent = RecentDocument(uri=document.uri, language=document.language, version=document.version)
                self._documents.put(document.uri, recent)
                changed.append(document)
        self._documents.use(current)
        return changed

    def others(self, uri: str, language: str, most: int) -> list[RecentDocument]:
        """Returns the other documents of the same language or family, newest visit first.

        Args:
            uri: the document that is asked for.
            language: its language id.
            most: how many at most.
        """
        family = next((family for family in _FAMILIES if language in family), {language})
        recent = (document for _, document in reversed(self._documents.items()))
        same = (document for document in recent if document.uri != uri and document.language in family)
        return list(islice(same, most))


_NEAR_LINES = 2
_MOST_DOCUMENTS = 20
_MOST_EDITS = 8
_MOST_LINES = 12
_MOST_CHARS = 1_200


@dataclass(slots=True)
class _Tracked:
    """A document.

    Attributes:
        path: for the model to see.
        base: its text before the edit under way; it is `text` where there is none.
        text: its newest text.
        region: where in `text` the edit under way is.
    """

    path: str
    base: str
    text: str
    region: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    uri: str
    path: str
    removed: tuple[str, ...]
    added: tuple[str, ...]

    def snippet(self) -> Snippet:
        lines = [*(f"-{line}" for line in self.removed), *(f"+{line}" for line in self.added)]
        return Snippet(path=self.path, text="\n".join(lines))


class RecentEdits:
    """The last 8 edits of the last 20 documents."""

    def __init__(self) -> None:
        self._documents: BoundedStore[str, _Tracked] = BoundedStore(_MOST_DOCUMENTS)
        self._done: deque[_Edit] = deque(maxlen=_MOST_EDITS)

    def observe(self, uri: str, path: str, text: str) -> None:
        """Records a document's newest text; the first one that is seen is no edit.

        Args:
            uri: the document.
            path: for the model to see.
            text: all of it.
        """
        tracked = self._documents.get(uri)
        if tracked is None:
            self._documents.put(uri, _Tracked(path, text, text))
            return
        if text == tracked.text:
            return
        self._documents.use(uri)
        change = TextChange.between(tracked.text, text)
        if tracked.region is not None and not _is_near(tracked.text, tracked.region, change.start, change.old_end):
            self._done.extend(_edits(uri, tracked))
            tracked.base, tracked.region = tracked.text, None
        if tracked.region is None:
            tracked.region = change.start, change.new_end
        else:
            whole = TextChange.between(tracked.base, text)
            tracked.region = whole.start, whole.new_end
        tracked.text = text

    def closed(self, uri: str) -> None:
        """Ends the edit under way of a document that is closed, and drops its text."""
        if (tracked := self._documents.pop(uri)) is not None:
            self._done.extend(_edits(uri, tracked))

    def forget(self, uri: str) -> None:
        """Drops a document and its edits."""
        self._documents.pop(uri)
        self._done = deque((edit for edit in self._done if edit.uri != uri), maxlen=_MOST_EDITS)

    def snippets(self, uri: str, around: str) -> tuple[Snippet, ...]:
        """Returns the edits that are not visible at a cursor, newest last.

        Args:
            uri: the cursor's document; its edit under way is left out, for it changes with every key.
            around: text next to the cursor; an edit whose lines stand there is left out.
        """
        under_way = [
            edit for other, tracked in self._documents.items() if other != uri for edit in _edits(other, tracked)
        ]
        shown = {"".join(line.split()) for line in around.split("\n")}
        edits = [
            edit
            for edit in (*self._done, *under_way)
            if not (edit.uri == uri and all("".join(line.split()) in shown for line in edit.added))
        ]
        return tuple(edit.snippet() for edit in edits[-_MOST_EDITS:])


def _edits(uri: str, tracked: _Tracked) -> Iterator[_Edit]:
    """Yields the edit under way, if there is one that is small and changes more than white space."""
    if tracked.region is None or tracked.base == tracked.text:
        return
    change = TextChange.between(tracked.base, tracked.text)
    old = _lines(tracked.base, change.start, change.old_end)
    removed, added = _different(old, _lines(tracked.text, change.start, change.new_end))
    if max(len(removed), len(added)) > _MOST_LINES or sum(map(len, (*removed, *added))) > _MOST_CHARS:
        return
    if "".join("".join(removed).split()) != "".join("".join(added).split()):
        yield _Edit(uri=uri, path=tracked.path, removed=removed, added=added)


def _lines(text: str, start: int, end: int) -> tuple[str, ...]:
    """Returns the whole lines that a span touches, blank ones left out."""
    begin = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", end)
    return tuple(line for line in text[begin : stop if stop >= 0 else len(text)].splitlines() if line.strip())


def _different(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns both without the lines at the beginning and at the end that they have in common."""
    start = end = 0
    most = min(len(old), len(new))
    while start < most and old[start] == new[start]:
        start += 1
    while end < most - start and old[-1 - end] == new[-1 - end]:
        end += 1
    return old[start : len(old) - end], new[start : len(new) - end]


def _is_near(text: str, region: tuple[int, int], start: int, end: int) -> bool:
    """Whether at most two line breaks lie between a region and a change."""
    begin, stop = region
    between = text[stop:start] if start >= stop else text[end:begin]
    return between.count("\n") <= _NEAR_LINES
