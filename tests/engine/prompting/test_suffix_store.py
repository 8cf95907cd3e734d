"""A prompt's suffix is reused while few of its tokens change."""

from __future__ import annotations

import pytest
from dgemma_engine.prompting.prefix_cache import SuffixStore

SUFFIX = list(range(100, 148))


def edited(place: int, *ids: int) -> list[int]:
    return [*SUFFIX[:place], *ids, *SUFFIX[place:]][: len(SUFFIX)]


def test_small_edit_after_the_clamped_head_keeps_it() -> None:
    store = SuffixStore()
    assert store.settled("a", SUFFIX, 16) == SUFFIX
    assert store.settled("a", edited(30, 7, 8), 16) == SUFFIX


@pytest.mark.parametrize("place", [0, 15])
def test_edit_of_the_clamped_head_renews_it(place: int) -> None:
    store = SuffixStore()
    store.settled("a", SUFFIX, 16)
    assert store.settled("a", edited(place, 7), 16) == edited(place, 7)


def test_edits_that_add_up_renew_it() -> None:
    store = SuffixStore()
    store.settled("a", SUFFIX, 16)
    assert store.settled("a", edited(20, *range(12)), 16) == edited(20, *range(12))
    assert store.settled("a", SUFFIX, 16) == SUFFIX


def test_each_document_has_its_own_suffix_and_the_oldest_is_dropped() -> None:
    store = SuffixStore(num_documents=2)
    for document in "abc":
        store.settled(document, SUFFIX, 16)
    assert store.settled("a", edited(30, 7), 16) == edited(30, 7)
    assert store.settled("c", edited(30, 7), 16) == SUFFIX


def test_store_of_no_documents_keeps_none() -> None:
    store = SuffixStore(num_documents=0)
    store.settled("a", SUFFIX, 16)
    assert store.settled("a", edited(30, 7), 16) == edited(30, 7)
