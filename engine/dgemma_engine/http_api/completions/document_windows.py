"""Prefixes that clients send -> the document of each, and where the part begins that its prompts have in common.

No client names its document, and several send a window of it: the last 4,000 characters, the last 256 lines. With each
key such a window begins one character or line later, and no prompt begins like the last one, so all of it would be
encoded again. So the first window of a document is kept here, and the next ones are cut where an earlier one began. For
a window that has moved past that place a new one is chosen, further in.

Files that begin alike, with the same licence say, are different documents: of one document only the newest request is
answered. A prefix belongs to a document if it continues the last one, or the last one continues it; where they differ,
only if they have much in common and differ near the cursor, as when a line is rewritten. Short prefixes agree by
chance: two files may both begin with `import`, with the cursor at the beginning of both. There the ends of the texts
after the cursor have to agree too.

Pure: no clock. Keeps the beginnings of a bounded number of documents in memory, nowhere else.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass

from dgemma_engine.protocol.text_delta import num_common

# Long enough that no two places of one client's files agree by chance; short enough to be found at once.
_MARK_CHARS = 96
# A window that has moved is cut by a sixth at its beginning, which serves for as much typing.
_GIVEN_UP = 6
_LEAST_GIVEN_UP = 2 * _MARK_CHARS
_KEPT_CHARS = 32_768
# More than the licence and imports that a project's files share; less than this is soon encoded again.
_MUCH_IN_COMMON = 2_000
_NEAR_CURSOR = 200


@dataclass(slots=True, kw_only=True)
class _Window:
    """A document that a client completes in.

    Attributes:
        key: of the document.
        mark: the text that its prompts begin with, shorter than `_MARK_CHARS` in a short one.
        text: the prefix that came last, at most `_KEPT_CHARS` from its beginning.
        start: where in it the mark stands.
        end: the end of the text after the cursor, at most `_MARK_CHARS`.
    """

    key: str
    mark: str
    text: str
    end: str
    start: int = 0


class DocumentWindows:
    """The documents of all clients, least recently used out.

    Args:
        num_documents: documents kept: small encodes whole prompts again, large keeps more text in memory.
    """

    def __init__(self, *, num_documents: int = 64) -> None:
        self._num_documents = num_documents
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._of: dict[tuple[str, str], list[str]] = {}
        self._keys = itertools.count(1)

    def locate(self, caller: str, path: str, prefix: str, suffix: str) -> tuple[str, int]:
        """Returns the key of the document, and how many characters at the beginning of the prefix to leave out.

        Args:
            caller: who asks.
            path: of the document, where the client sends one; else empty.
            prefix: text before the cursor.
            suffix: text after it.
        """
        best, most, start = "", -1, 0
        end = suffix[-_MARK_CHARS:]
        for key in reversed(self._of.get((caller, path), ())):
            found = _start_in(self._windows[key], prefix, end)
            if found is not None and found[1] > most:
                best, (start, most) = key, found
        if best:
            window = self._windows[best]
            window.mark, window.start = prefix[start : start + _MARK_CHARS], start
            window.text, window.end = prefix[:_KEPT_CHARS], end
            self._touch(caller, path, best)
            return best, start
        key = f"{next(self._keys)}"
        self._windows[key] = _Window(key=key, mark=prefix[:_MARK_CHARS], text=prefix[:_KEPT_CHARS], end=end)
        self._of.setdefault((caller, path), []).append(key)
        self._forget()
        return key, 0

    def _touch(self, caller: str, path: str, key: str) -> None:
        self._windows.move_to_end(key)
        keys = self._of[caller, path]
        keys.remove(key)
        keys.append(key)

    def _forget(self) -> None:
        while len(self._windows) > self._num_documents:
            oldest, _ = self._windows.popitem(last=False)
            for owner, keys in list(self._of.items()):
                if oldest in keys:
                    keys.remove(oldest)
                if not keys:
                    del self._of[owner]


def _start_in(window: _Window, prefix: str, end: str) -> tuple[int, int] | None:
    """Returns where the prompts of a document begin in a further prefix, and how much the two have in common.

    None if the prefix is of another document.
    """
    if len(window.mark) < _MARK_CHARS or len(prefix) < _MARK_CHARS:
        # A document of a line or two: it is the same as long as one text goes on with the other, on either side of the
        # cursor. A bracket that closes itself may be all that stands after it.
        goes_on = prefix.startswith(window.mark) or window.mark.startswith(prefix)
        is_same = (
            goes_on and bool(prefix) == bool(window.mark) and (end.endswith(window.end) or window.end.endswith(end))
        )
        return (0, min(len(prefix), len(window.mark))) if is_same else None
    start = prefix.find(window.mark)
    moved = window.text.find(prefix[:_MARK_CHARS]) if start < 0 else -1
    if start < 0 and moved < 0:
        return None
    in_common = _in_common(window.text[window.start :], prefix[start:]) if start >= 0 else 0
    in_common = in_common or _in_common(window.text[max(moved, 0) :], prefix)
    if not in_common:
        return None
    if 0 <= start <= len(prefix) // 2:
        return start, in_common
    # The window has moved past the mark, or back so far that too much would be given up: a new mark at a line start.
    cut = max(len(prefix) // _GIVEN_UP, _LEAST_GIVEN_UP)
    if cut >= len(prefix):
        return 0, in_common
    return prefix.find("\n", cut, cut + _KEPT_CHARS // _GIVEN_UP) + 1 or cut, in_common


def _in_common(last: str, new: str) -> int:
    """Returns how many characters two texts of one document have in common; 0 if they are of two documents."""
    most = min(len(last), len(new), _KEPT_CHARS)
    num = num_common(last, new, most)
    if num == most:
        return num
    if num < _MUCH_IN_COMMON:
        return 0
    # A line above the cursor may have been added or removed.
    is_near = most - num <= _NEAR_CURSOR or last[-_NEAR_CURSOR:] in new or new[-_NEAR_CURSOR:] in last
    return num if is_near else 0
