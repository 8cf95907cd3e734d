"""A request in token ids: the prompt, the clamped suffix, and the tokens that end the middle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.infill.task import Hole, build_prompt
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.protocol.messages import Context, Snippet
from dgemma_engine.tokenization.tokenizer import Tokenizer

FORMAT = InfillFormat(
    fill_token_id=7,
    more_token_id=8,
    prefix_token_id=5,
    suffix_token_id=6,
    slot_sizes=(4, 8, 16, 24),
    prefix_tokens=24,
    suffix_tokens=8,
    suffix_head_tokens=6,
    snippet_tokens=40,
)


@pytest.fixture(scope="module")
def folder(make_checkpoint: Callable[..., Any]) -> Path:
    return make_checkpoint(seed=21, canvas_length=32).folder


@pytest.fixture(scope="module")
def hole_of(folder: Path) -> Callable[..., Hole]:
    tokenizer, config = Tokenizer.load(folder), ModelConfig.load(folder)

    def hole_of(prefix: str, suffix: str, form: InfillFormat = FORMAT, **options: Any) -> Hole:
        context = Context(
            document="a",
            prefix=prefix,
            suffix=suffix,
            snippets=options.pop("snippets", ()),
            edits=options.pop("edits", ()),
        )
        return build_prompt(context, tokenizer, form, config, **options)

    return hole_of


@pytest.fixture(scope="module")
def ids_of(folder: Path) -> Callable[[str], list[int]]:
    return Tokenizer.load(folder).encode


@pytest.mark.parametrize("blank", ["", "\n", "  \r\n\t"])
def test_blank_suffix_has_no_clamp_and_may_end_with_the_file(hole_of: Callable[..., Hole], blank: str) -> None:
    hole = hole_of("x = 1, ", blank)
    assert (hole.head_ids, hole.is_last) == ((), True)
    assert hole.end_ids == {1, FORMAT.fill_token_id}


def test_suffix_with_text_is_clamped_and_only_fill_ends_the_middle(hole_of: Callable[..., Hole]) -> None:
    hole = hole_of("x = 1, ", "\ny")
    assert len(hole.head_ids) == 2
    assert hole.end_ids == {FORMAT.fill_token_id}


def test_checkpoint_without_fill_token_ends_nothing(hole_of: Callable[..., Hole]) -> None:
    assert hole_of("x = ", "\ny", FORMAT.without_fill()).end_ids == frozenset()


def test_prompt_ends_at_a_boundary_and_the_typed_text_opens_the_middle(
    hole_of: Callable[..., Hole], ids_of: Callable[[str], list[int]]
) -> None:
    hole = hole_of("a.conf", "\ny")
    assert hole.boundary.opening == "conf"
    assert hole.prompt_ids == [2, 6, *ids_of("\ny"), 5, *ids_of("a.")]


def test_typing_within_a_word_leaves_the_prompt_unchanged(hole_of: Callable[..., Hole]) -> None:
    assert hole_of("a.c", "\ny").prompt_ids == hole_of("a.confi", "\ny").prompt_ids


def test_rest_of_a_word_is_clamped_where_a_fill_token_marks_the_end(
    hole_of: Callable[..., Hole], ids_of: Callable[[str], list[int]]
) -> None:
    assert list(hole_of("con", "fig)").head_ids) == ids_of("fig)")
    assert list(hole_of("con", "fig)", FORMAT.without_fill()).head_ids) == ids_of(")")


def test_prompt_suffix_may_differ_from_the_clamped_one(
    hole_of: Callable[..., Hole], ids_of: Callable[[str], list[int]]
) -> None:
    hole = hole_of("x = ", "\nnew", settled=lambda _ids, _num_clamped: ids_of("\nold"))
    assert hole.prompt_ids[2:6] == ids_of("\nold")
    assert list(hole.head_ids) == ids_of("\nnew")


def test_suffix_at_the_end_of_the_prompt_is_the_current_one(
    hole_of: Callable[..., Hole], ids_of: Callable[[str], list[int]]
) -> None:
    """A suffix at the end of the prompt is encoded at each keystroke, so an older one would save nothing."""
    form = replace(FORMAT, suffix_last=True, middle_token_id=9, suffix_head_tokens=0, begins_with_bos=False)
    hole = hole_of("x = ", "\nnew", form, settled=lambda _ids, _num_clamped: ids_of("\nold"))
    before = hole.boundary.prefix
    assert hole.prompt_ids == [5, *ids_of(before), 6, *ids_of("\nnew"), 9]
    assert hole.around_ids == [*ids_of("\nnew"), *ids_of(before)]


def test_without_healing_the_prompt_ends_at_the_cursor(
    hole_of: Callable[..., Hole], ids_of: Callable[[str], list[int]]
) -> None:
    hole = hole_of("a.conf", "ig\n", replace(FORMAT, healing="none"))
    assert (hole.boundary.opening, hole.boundary.closing) == ("", "")
    assert hole.prompt_ids == [2, 6, *ids_of("ig\n"), 5, *ids_of("a.conf")]


def test_snippets_stand_first_and_the_most_relevant_nearest(
    hole_of: Callable[..., Hole], ids_of: Callable[[str], list[int]]
) -> None:
    far, near = Snippet(path="far.py", text="f" * 80), Snippet(path="n.py", text="abc")
    hole = hole_of("x = ", "\ny", snippets=(far, near))
    near_ids = ids_of("# n.py\nabc\n")
    assert hole.prompt_ids[1 : 1 + len(near_ids)] == near_ids
    assert hole.prompt_ids[1 + len(near_ids)] == FORMAT.suffix_token_id


def test_edits_stand_after_snippets(hole_of: Callable[..., Hole], ids_of: Callable[[str], list[int]]) -> None:
    snippets, edits = (Snippet(path="n.py", text="abc"),), (Snippet(path="e.py", text="+d"),)
    ids = ids_of("# n.py\nabc\n") + ids_of("# e.py\n+d\n")
    assert hole_of("x = ", "\ny", snippets=snippets, edits=edits).prompt_ids[1 : 1 + len(ids)] == ids


def test_small_snippet_is_used_where_a_larger_one_does_not_fit(
    hole_of: Callable[..., Hole], ids_of: Callable[[str], list[int]]
) -> None:
    small, large = Snippet(path="n.py", text="abc"), Snippet(path="far.py", text="f" * 80)
    ids = ids_of("# n.py\nabc\n")
    hole = hole_of("x = ", "\ny", snippets=(small, large))
    assert hole.prompt_ids[1 : 2 + len(ids)] == [*ids, FORMAT.suffix_token_id]


def test_format_without_room_for_snippets_leaves_them_out(hole_of: Callable[..., Hole]) -> None:
    form = replace(FORMAT, snippet_tokens=0)
    snippets = (Snippet(path="n.py", text="abc"),)
    assert hole_of("x = ", "\ny", form, snippets=snippets).prompt_ids == hole_of("x = ", "\ny", form).prompt_ids


def test_suffix_longer_than_the_canvas_leaves_half_of_it_free(hole_of: Callable[..., Hole]) -> None:
    form = replace(FORMAT, suffix_head_tokens=500, suffix_tokens=500)
    assert len(hole_of("x", "y z " * 2_000, form).head_ids) == 16


def test_text_read_of_a_long_prefix_moves_in_jumps(hole_of: Callable[..., Hole], folder: Path) -> None:
    decode, form = Tokenizer.load(folder).decode, replace(FORMAT, prefix_tokens=25)
    lengths = {size: len(decode(hole_of("a" * size, "", form).around_ids)) for size in (3, *range(400, 450))}
    assert lengths.pop(3) == 0
    assert {size - length for size, length in lengths.items()} == {200, 250}


def test_suffix_beside_the_prompt_is_the_text_after_the_cursor(
    hole_of: Callable[..., Hole], ids_of: Callable[[str], list[int]]
) -> None:
    form = replace(FORMAT.without_fill(), suffix_token_id=None, suffix_tokens=0, parallel_suffix_tokens=4)
    hole = hole_of("con", "fig)\nmore", form)
    assert hole.parallel_ids == ids_of("fig)\nmore")[:4]
    assert hole.prompt_ids == hole_of("con", "other", form).prompt_ids
    assert hole_of("con", "\n ", form).parallel_ids == []
