"""Candidates of the causal mode: the greedy middle and its likeliest forks, of a model that knows one letter's next."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from dgemma_engine.infill.autoregressive import propose
from dgemma_engine.infill.candidate import Proposals
from dgemma_engine.protocol.messages import Extent
from dgemma_engine.scheduling.cancellation import Cancel
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.tokenization.token_healing import Boundary

from tests.engine.infill.test_task import task

VOCAB = 128


@dataclass
class Cache:
    """As much of a prompt cache as writing asks for."""

    length: int = 1

    def copy_last(self) -> list[torch.Tensor]:
        return []

    def truncate(self, length: int) -> None:
        assert length <= self.length
        self.length = length

    def restore_last(self, length: int, _copies: list[torch.Tensor]) -> None:
        self.length = length


class Letters:
    """A model that predicts a letter from the one before it; what the table does not say is a line break."""

    device = torch.device("cpu")
    config = SimpleNamespace(vocab_size=VOCAB)

    def __init__(self, table: dict[str, dict[str, float]]) -> None:
        self._next_VV = torch.full((VOCAB, VOCAB), 1e-9)
        self._next_VV[:, ord("\n")] = 1e-6
        for letter, following in table.items():
            for other, probability in following.items():
                self._next_VV[ord(letter), ord(other)] = probability

    def encode(self, ids_BT: torch.Tensor, cache: Cache) -> torch.Tensor:
        cache.length += ids_BT.shape[1]
        return self._next_VV[ids_BT]

    def logits(self, hidden_BTV: torch.Tensor) -> torch.Tensor:
        return hidden_BTV.log()


def proposed(
    table: dict[str, dict[str, float]], document: str, *, is_alone: bool = True, left_s: float = 600, **fields: Any
) -> Proposals:
    hole = task(document, **fields)
    prefix, suffix = hole.context.prefix, hole.context.suffix
    hole = replace(
        hole,
        hole=replace(
            hole.hole,
            boundary=Boundary(prefix=prefix, opening="", closing="", suffix=suffix),
            prompt_ids=[ord(prefix[-1])],
            judged_suffix_ids=tuple(map(ord, suffix)),
        ),
        form=replace(hole.form, healing="token"),
    )
    cancel = Cancel(deadline_s=time.monotonic() + left_s, clock=time.monotonic)
    cache = Cache()
    work = propose(cast("Any", Letters(table)), hole, cast("Any", cache), cancel, draft="", is_alone=is_alone)
    proposals = finished(work)
    assert cache.length == 1
    return proposals


def texts(proposals: Proposals) -> list[str]:
    return [proposal.text for proposal in proposals.found]


UNSURE = {"=": {"a": 0.6, "b": 0.4}, "b": {"c": 0.9, "d": 0.1}}


def test_unsure_token_gives_a_second_candidate() -> None:
    proposals = proposed(UNSURE, "x =|\n")
    assert texts(proposals) == ["a", "bc"]
    assert proposals.passes == 4, "a and its end; b with c and the end"


def test_beside_canvases_there_is_one_candidate() -> None:
    assert texts(proposed(UNSURE, "x =|\n", is_alone=False)) == ["a"]


def test_unlikely_token_gives_none() -> None:
    assert texts(proposed({"=": {"a": 0.99, "b": 0.01}}, "x =|\n")) == ["a"]


def test_rest_of_the_greedy_middle_is_the_draft_of_its_fork() -> None:
    table = {"=": {"a": 0.6, "b": 0.4}, **{letter: {"cdefg"[i]: 1.0} for i, letter in enumerate("bcdef")}}
    table["a"] = {"c": 1.0}
    proposals = proposed(table, "x =|\n")
    assert texts(proposals) == ["acdefg", "bcdefg"]
    assert proposals.passes == 8


def test_middle_may_end_wherever_the_suffix_is_likely() -> None:
    table = {"(": {"a": 1.0}, "a": {",": 0.5, ")": 0.4}, ",": {"b": 1.0}, "b": {")": 1.0}}
    assert {"a", "a,b"} == set(texts(proposed(table, "f(|)\n")))


def test_fork_that_does_not_end_is_none() -> None:
    assert texts(proposed({"=": {"a": 0.6, "b": 0.4}, "b": {"b": 1.0}}, "x =|\n")) == ["a"]


def test_block_forks_only_to_its_beginnings() -> None:
    table = {" ": {"a": 0.6, "b": 0.4}, "a": {"\n": 0.9, "c": 0.1}, "\n": {"d": 0.5, "e": 0.4}, "d": {"\0": 1.0}}
    proposals = proposed(table, "    |\nz", extent=Extent.BLOCK)
    assert texts(proposals) == ["a\n", "a"], "one and the same when they are merged"
    assert proposals.passes == 3


@pytest.mark.parametrize("is_alone", [True, False])
def test_no_pass_is_made_after_the_deadline(is_alone: bool) -> None:
    assert proposed(UNSURE, "x =|\n", left_s=-1, is_alone=is_alone).passes == 0
