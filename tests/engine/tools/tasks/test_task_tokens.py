from __future__ import annotations

import pytest
from dgemma_engine.errors import TaskError
from dgemma_engine.tokenization.tokenizer import Tokenizer
from dgemma_engine.tools.tasks.task_rows import Part, TaskRow
from dgemma_engine.tools.tasks.task_tokens import UNKNOWN, TaskTokenizer

from tests.llama_checkpoints import byte_tokenizer

START, BLANK = 1, 5


@pytest.fixture
def backend() -> Tokenizer:
    return Tokenizer(byte_tokenizer())


@pytest.fixture
def tokenizer(backend: Tokenizer) -> TaskTokenizer:
    return TaskTokenizer(backend, start_id=START, blank_id=BLANK)


def row(*parts: tuple[str, str | int]) -> TaskRow:
    made = [
        Part("given" if kind == "given" else "free", text) if isinstance(text, str) else Part("free", None, text)
        for kind, text in parts
    ]
    return TaskRow(tuple(made), "t: line 1")


def test_canvas_begins_with_the_line_of_the_first_free_token(tokenizer: TaskTokenizer, backend: Tokenizer) -> None:
    asked = row(("given", "names\nab"), ("free", "xy"), ("given", "c\n"), ("free", "z"), ("given", "d"))
    tokens = tokenizer.tokens(asked)
    ids = backend.encode
    assert tokens.canvas.tolist() == [*ids("ab"), *ids("xy"), *ids("c\n"), *ids("z"), *ids("d")]
    assert tokens.is_free.tolist() == [False, False, True, True, False, False, True, False]
    line = [*ids("ab"), BLANK, BLANK, *ids("c\n"), BLANK, *ids("d")]
    assert tokens.prompt.tolist() == [START, *ids("names\n"), *line, *ids("\n")]
    canvas = tokens.canvas_row(7)
    assert canvas.seed == 7 and canvas.num_free == 3
    wanted = [None if free else token for token, free in zip(tokens.canvas, tokens.is_free, strict=True)]
    assert canvas.positions() == wanted
    assert canvas.opening_ids == tuple(ids("ab")) and canvas.head_ids == tuple(ids("d"))


def test_row_that_begins_and_ends_free_has_no_opening_and_no_head(tokenizer: TaskTokenizer, backend: Tokenizer) -> None:
    canvas = tokenizer.tokens(row(("free", "a"), ("given", "+"), ("free", "b"))).canvas_row(0)
    assert (canvas.opening_ids, canvas.between, canvas.head_ids) == ((), ((1, tuple(backend.encode("+"))),), ())
    assert tokenizer.tokens(row(("free", "ab"))).canvas_row(0).positions() == [None, None]


def test_names_of_special_tokens_are_text(tokenizer: TaskTokenizer) -> None:
    tokens = tokenizer.tokens(row(("given", "<special5>"), ("free", "<special1>")))
    assert not {START, BLANK} & set(tokens.canvas.tolist())
    assert tokens.prompt.tolist().count(BLANK) == int(tokens.is_free.sum())


def test_free_text_may_be_unknown_and_is_found_again_part_by_part(tokenizer: TaskTokenizer, backend: Tokenizer) -> None:
    asked = row(("given", "a="), ("free", 2), ("given", ";"), ("free", "q"))
    tokens = tokenizer.tokens(asked)
    assert not tokens.is_known and tokens.canvas[2:4].tolist() == [UNKNOWN, UNKNOWN]
    found = [*backend.encode("42"), *backend.encode("r")]
    assert list(tokenizer.texts(asked, tokens, found)) == ["a=", "42", ";", "r"]
    assert tokenizer.tokens(row(("free", "q"))).is_known


def test_a_row_too_long_for_a_model_is_refused(tokenizer: TaskTokenizer) -> None:
    tokens = tokenizer.tokens(row(("given", "ab"), ("free", "cd")))
    tokens.require_fits(4, tokens.length, "t: line 1")
    with pytest.raises(
        TaskError, match="t: line 1 needs a canvas of 4 tokens, and the model has 3; shorten it, or end"
    ):
        tokens.require_fits(3, 100, "t: line 1")
    with pytest.raises(TaskError, match="t: line 1 needs 10 tokens, and the model reads 9; shorten it"):
        tokens.require_fits(4, 9, "t: line 1")
