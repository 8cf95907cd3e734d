"""Candidates for a hole that are copied from elsewhere in the document or from its snippets.

Turns a `Context` into middles whose surroundings match on both sides, by comparing lexemes. Keeps an index per
document that follows its edits. Needs no tokens and no model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import accumulate

from dgemma_engine.bounded_store import MOST_DOCUMENTS, BoundedStore
from dgemma_engine.prompt_lookup.context_match import Cut, Surroundings
from dgemma_engine.prompt_lookup.ngram_index import NgramIndex
from dgemma_engine.protocol.messages import Context

_MAX_FINISHED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A middle that was found elsewhere.

    Attributes:
        text: to be inserted at the cursor.
        before: lexemes that match before the cursor; line breaks count, and so does the beginning of a word that is
            long enough to mean something.
        after: lexemes that match after the middle; 0 where nothing but the end of the line ends it.
        count: places that propose the same text.
    """

    text: str
    before: int
    after: int
    count: int


@dataclass(slots=True, eq=False)
class _Document:
    """The index of one document, and what it was made from."""

    index: NgramIndex = field(default_factory=NgramIndex)
    above: str = ""
    below: str = ""
    snippets: tuple[str, ...] = ()
    num_characters: int = 0


class SeedStore:
    """Proposes middles; keeps the index of each document, least recently used out.

    Args:
        num_documents: most indexes kept; 0 keeps none.
        max_characters: of text that is indexed over all documents kept. The newest is kept whatever its size.
        document_characters: of one document's text that is indexed: a third each for what is above the cursor, for
            what is below it and for snippets. Large finds more, but the first call takes that much longer.
        max_places: most places compared for one hole; small misses the best one, large takes more time.
    """

    def __init__(
        self,
        *,
        num_documents: int = MOST_DOCUMENTS,
        max_characters: int = 2_000_000,
        document_characters: int = 600_000,
        max_places: int = 256,
    ) -> None:
        sizes = {"max_characters": max_characters, "document_characters": document_characters, "max_places": max_places}
        for name, value in sizes.items():
            if value < 0:
                raise ValueError(f"{name}={value} must not be negative")
        self._share = min(max_characters, document_characters) // 3
        self._max_places = max_places
        self._documents: BoundedStore[str, _Document] = BoundedStore(num_documents, max_weight=max_characters)

    @property
    def num_characters(self) -> int:
        """Characters of text that are indexed."""
        return sum(document.num_characters for _, document in self._documents.items())

    @property
    def num_entries(self) -> int:
        """Entries of all indexes."""
        return sum(document.index.num_entries for _, document in self._documents.items())

    def propose(self, context: Context, *, limit: int = 3) -> list[Seed]:
        """Returns middles that were found elsewhere, best first, each text once.

        Args:
            context: the hole, with the texts to search.
            limit: most seeds to return.
        """
        cut = Cut.of(context)
        if cut is None:
            return []
        document, share = self._documents.get(context.document) or _Document(), self._share
        above = cut.above if len(cut.above) <= share else _tail(cut.above, share)
        below = cut.below if len(cut.below) <= share else _head(cut.below, share)
        # The most relevant ones that fit, least relevant first.
        sizes = accumulate(len(snippet.text) for snippet in reversed(context.snippets))
        num_fitting = sum(size <= share for size in sizes)
        snippets = tuple(snippet.text for snippet in context.snippets[len(context.snippets) - num_fitting :])
        if (above, below) != (document.above, document.below):
            document.index.update(above=above.splitlines(), below=below.splitlines())
        if snippets != document.snippets:
            document.index.update_snippets(snippets)
        document.above, document.below, document.snippets = above, below, snippets
        document.num_characters = len(above) + len(below) + sum(map(len, snippets))
        self._documents.put(context.document, document, weight=document.num_characters)
        surroundings = Surroundings(cut, document.index, context.extent)
        places = sorted(surroundings.places(self._max_places), key=lambda place: -place.before)[:_MAX_FINISHED]
        seeds: dict[str, Seed] = {}
        for place in places:
            for middle in surroundings.middles(place):
                seed = Seed(text=middle.text, before=place.before, after=middle.after, count=1)
                if known := seeds.get(seed.text):
                    seed = replace(max(known, seed, key=_fit), count=known.count + 1)
                seeds[seed.text] = seed
        return sorted(seeds.values(), key=lambda seed: (*_fit(seed), seed.count), reverse=True)[:limit]


def _fit(seed: Seed) -> tuple[int, int]:
    return seed.before + seed.after, seed.after


def _num_beyond(text: str, num_characters: int) -> int:
    """Returns how much of `text`, which is longer, to leave out so that `num_characters` are left at most.

    It grows in jumps: the far end would otherwise move with every line that the cursor passes.
    """
    jump = max(1, num_characters // 8)
    return -(-(len(text) - num_characters) // jump) * jump


def _tail(text: str, num_characters: int) -> str:
    start = _num_beyond(text, num_characters)
    return text[text.find("\n", start - 1) + 1 or len(text) :]


def _head(text: str, num_characters: int) -> str:
    return text[: text.rfind("\n", 0, len(text) - _num_beyond(text, num_characters)) + 1]
