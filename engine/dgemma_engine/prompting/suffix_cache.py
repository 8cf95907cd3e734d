"""The suffix that a document's prompt holds, kept while edits below the cursor change little of it.

The suffix stands at the prompt's beginning, so a prompt with another one is encoded from scratch. What the canvas
clamps is always the suffix as it is now. Token ids in, token ids out.
"""

from __future__ import annotations

from collections import OrderedDict
from difflib import SequenceMatcher

# Share of the suffix that may differ before the prompt's copy is renewed.
_MOST_DIFFERENT = 0.15


class SuffixStore:
    """The last prompt suffix of each of a few documents, least recently used out.

    Args:
        num_documents: suffixes kept.
    """

    def __init__(self, *, num_documents: int = 8) -> None:
        if num_documents < 1:
            raise ValueError(f"{num_documents=} must be at least 1")
        self._num_documents = num_documents
        self._kept: OrderedDict[str, list[int]] = OrderedDict()

    def settled(self, document: str, suffix_ids: list[int], num_clamped: int) -> list[int]:
        """Returns the suffix to put into the prompt: the last one, or the real one where that will not do.

        Args:
            document: whose suffix.
            suffix_ids: the real one, as much of it as a prompt holds.
            num_clamped: leading tokens that must be right, since the canvas shows them too.
        """
        kept = self._kept.pop(document, None)
        if kept is None or not _is_close(kept, suffix_ids, num_clamped):
            kept = suffix_ids
        self._kept[document] = kept
        if len(self._kept) > self._num_documents:
            self._kept.popitem(last=False)
        return kept


def _is_close(kept: list[int], real: list[int], num_clamped: int) -> bool:
    if kept == real:
        return True
    if kept[:num_clamped] != real[:num_clamped]:
        return False
    return SequenceMatcher(None, kept, real, autojunk=False).ratio() >= 1 - _MOST_DIFFERENT
