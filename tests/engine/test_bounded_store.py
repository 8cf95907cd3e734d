from __future__ import annotations

import pytest
from dgemma_engine.bounded_store import BoundedStore


def keys(store: BoundedStore[str, int]) -> str:
    return "".join(key for key, _ in store.items())


def test_least_recently_used_go_first() -> None:
    store = BoundedStore[str, int](3)
    for key in "abc":
        store.put(key, 1)
    store.use("a")
    store.put("d", 1)
    assert keys(store) == "cad"
    store.use("b")
    assert (store.get("b"), store.get("c")) == (None, 1)
    store.put("c", 2)
    assert keys(store) == "adc"
    assert (store.pop("a"), store.pop("a")) == (1, None)
    store.clear()
    assert keys(store) == ""


def test_weight_is_bounded_and_the_newest_stays() -> None:
    store = BoundedStore[str, int](9, max_weight=5)
    for key, weight in {"a": 2, "b": 3, "c": 1}.items():
        store.put(key, 1, weight=weight)
    assert keys(store) == "bc"
    store.put("d", 1, weight=9)
    assert keys(store) == "d"


def test_room_is_made_before_an_entry_is() -> None:
    store = BoundedStore[str, int](3, max_weight=5)
    for key, weight in {"a": 2, "b": 2, "c": 1}.items():
        store.put(key, 1, weight=weight)
    store.make_room(2)
    assert keys(store) == "bc"
    store.put("d", 1, weight=2)
    assert keys(store) == "bcd"
    store.make_room(9)
    assert keys(store) == ""


def test_kept_entries_stay() -> None:
    kept = {"a"}
    store = BoundedStore[str, int](1, kept=kept)
    for key in "abc":
        store.put(key, 1)
    assert keys(store) == "ac"
    kept.clear()
    store.put("d", 1)
    assert keys(store) == "d"


def test_store_of_no_entries_keeps_none() -> None:
    store = BoundedStore[str, int](0, max_weight=5)
    store.put("a", 1, weight=1)
    assert keys(store) == ""


def test_store_refuses_a_negative_size() -> None:
    with pytest.raises(ValueError, match=r"num_entries=-1 must not be negative"):
        BoundedStore[str, int](-1)


def test_weight_of_an_entry_is_that_of_its_last_put() -> None:
    store = BoundedStore[str, int](9, max_weight=5)
    store.put("a", 1, weight=1)
    store.put("b", 1, weight=2)
    store.put("a", 1, weight=4)
    assert keys(store) == "a"
    store.pop("a")
    store.put("c", 1, weight=5)
    store.clear()
    for key in "de":
        store.put(key, 1, weight=2)
    assert keys(store) == "de"
