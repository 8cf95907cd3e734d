"""A Qwen2 in the engine: suffix last in the prompt, a healed edge, and lines that end with their last token."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.llama.packed_model import PackedLlama
from dgemma_engine.families.registry import family_of
from dgemma_engine.infill import ranker
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.likelihood import Branch, Likelihood, likelihoods
from dgemma_engine.infill.options import InfillOptions
from dgemma_engine.protocol.messages import Context, Extent, Finish, Infill
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tokenization.tokenizer import Tokenizer
from dgemma_kernels.packing.few_bits import COMPACT, DENSE, ProductKinds
from torch import Tensor

from tests.llama_checkpoints import QWEN2_MARKS, LlamaCheckpoint, alphabet, make_qwen2, write_llama_gguf

MERGES = ["d e", ") :", "): Ċ", ") Ċ", "Ċ Ċ", "o r"]
TOKENS = [*QWEN2_MARKS, *alphabet(), *(merge.replace(" ", "") for merge in MERGES)]
END, PREFIX, MIDDLE, SUFFIX = (
    QWEN2_MARKS.index(f"<|{name}|>") for name in ("endoftext", "fim_prefix", "fim_middle", "fim_suffix")
)
SHOWN = InfillOptions(silence=False, seeds=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> LlamaCheckpoint:
    """Random weights, and a vocabulary in which brackets and the line break after them are one token."""
    made = make_qwen2(tmp_path_factory.mktemp("qwen2"), max_position_embeddings=2_048)
    write_llama_gguf(
        made.gguf, made.reference, tokenizer__ggml__tokens=TOKENS, tokenizer__ggml__merges=MERGES,
        tokenizer__ggml__token_type=[3] * 16 + [1] * (len(TOKENS) - 16),
    )  # fmt: skip
    return made


@pytest.fixture
def tokenizer(checkpoint: LlamaCheckpoint) -> Tokenizer:
    facts = read_facts(checkpoint.gguf)
    return family_of(facts).read_tokenizer(facts)


@pytest.fixture(params=[DENSE, COMPACT], ids=["dense", "compact"])
def engine(request: pytest.FixtureRequest, checkpoint: LlamaCheckpoint, monkeypatch: pytest.MonkeyPatch) -> Engine:
    return load(checkpoint.gguf, request.param, monkeypatch)


def load(path: Path, kinds: ProductKinds, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Loads in float32, whichever format this processor multiplies faster."""
    monkeypatch.setattr("dgemma_engine.families.causal_llama.weight_dtype", lambda _device: torch.float32)
    monkeypatch.setattr("dgemma_engine.families.causal_llama.product_kinds", lambda **_facts: kinds)
    return Engine.load(path, device="cpu", report=lambda _percent, _message: None)


def never() -> Cancel:
    return Cancel(deadline_s=1e9, clock=lambda: 0.0)


def favour(monkeypatch: pytest.MonkeyPatch, *token_ids: int) -> None:
    """Makes one token likelier than any other, the next one than any but that, and so on."""
    logits = PackedLlama.logits

    def favoured(model: PackedLlama, hidden_BLD: Tensor) -> Tensor:
        scores = logits(model, hidden_BLD)
        for place, token_id in enumerate(token_ids):
            scores[..., token_id] += 1e4 / 10**place
        return scores

    monkeypatch.setattr(PackedLlama, "logits", favoured)


def ask(engine: Engine, prefix: str, suffix: str = "\n", *, most: int = 16) -> Infill:
    context = Context(document="d", prefix=prefix, suffix=suffix, path="f.py", max_middle_tokens=most)
    return engine.infill(context, never(), options=SHOWN)


def test_written_middle_is_that_of_the_reference(
    checkpoint: LlamaCheckpoint, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a plain loop over the prompt as the model was trained with it, which begins with the backed-off token."""
    engine = load(checkpoint.gguf, DENSE, monkeypatch)
    letters, opening = tokenizer.encode("xyzabc"), tokenizer.encode("(")
    bias = torch.full((288,), -1e4)
    bias[letters] = 0.0
    logits = PackedLlama.logits
    monkeypatch.setattr(PackedLlama, "logits", lambda model, hidden: logits(model, hidden) + bias)
    ids = [PREFIX, *tokenizer.encode("value = f"), SUFFIX, *tokenizer.encode(")\nnext\n"), MIDDLE, *opening]
    written = list[int]()
    for _ in range(8):
        with torch.no_grad():
            scores = checkpoint.reference(torch.tensor([[*ids, *written]])).logits[0, -1]
        written.append(int((scores + bias).argmax()))
    assert ask(engine, "value = f(", ")\nnext\n", most=8).candidates[0].text == tokenizer.decode(written)[:7]
    assert engine.compiled


def test_answer_ends_with_the_token_that_ends_the_line(
    engine: Engine, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    [last] = tokenizer.encode("):\n")
    favour(monkeypatch, last)
    answer = ask(engine, "if f(a", "\n    pass\n")
    assert (answer.text, answer.finish) == ("):", Finish.STABLE)
    # The backed-off letter, the line's last token, and the pass that ranks.
    assert answer.forwards == 3


def test_token_that_was_typed_in_part_ends_the_line_as_well(
    engine: Engine, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The middle begins with the backed-off `)`, which the one token of bracket, colon and line break spells."""
    [last] = tokenizer.encode("):\n")
    favour(monkeypatch, last)
    answer = ask(engine, "if f(a)", "\n    pass\n")
    assert (answer.text, answer.forwards) == (":", 2)


def test_line_break_that_was_typed_does_not_end_the_line_after_it(
    engine: Engine, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    [typed], [letter] = tokenizer.encode("):\n"), tokenizer.encode("x")
    favour(monkeypatch, letter, typed)
    assert ask(engine, "if f(a):\n", "\n", most=6).text.startswith("x")


def test_number_format_is_named_and_no_step_is_denoised(
    engine: Engine, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    favour(monkeypatch, *tokenizer.encode("x"))
    assert engine.number_format.startswith("float32")
    assert ask(engine, "value = ", most=6).text.startswith("x")
    assert engine.denoising_steps == 0


def test_next_key_encodes_the_suffix_and_what_was_typed(engine: Engine, tokenizer: Tokenizer) -> None:
    prefix, suffix = "value = function(argument" * 4, ")\nfollowing = 1\n"
    first, again, next_key = (ask(engine, prefix + typed, suffix, most=4) for typed in ("", "", "s"))
    num_suffix = len(tokenizer.encode(suffix))
    assert first.encoded_tokens == first.prompt_tokens == len(tokenizer.encode(prefix)) - 1 + num_suffix + 3
    assert again.encoded_tokens == 0
    # What was the middle's first token is the prefix's last; then the suffix, between its marks.
    assert (next_key.prompt_tokens, next_key.encoded_tokens) == (first.prompt_tokens + 1, 1 + num_suffix + 2)


def test_suffix_that_changed_is_read_as_it_is_now(engine: Engine) -> None:
    """The change is four lines below the cursor: a prompt with the suffix first would reuse the older suffix."""
    prefix, suffix = "value = ", "\n" + "line of text\n" * 4
    changed = suffix[:-2] + "s\n"
    ask(engine, prefix, suffix, most=4)
    assert 0 < ask(engine, prefix, changed, most=4).encoded_tokens <= 3


def test_judged_line_counts_both_ways_to_end(
    checkpoint: LlamaCheckpoint, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate's last token and an end of line or middle, or the last token with a line break, of the reference."""
    engine = load(checkpoint.gguf, DENSE, monkeypatch)
    [joined], [last], [line_break] = map(tokenizer.encode, ("):\n", "):", "\n"))
    bias = torch.zeros(288)
    bias[[joined, last, line_break]] = torch.tensor([12.0, 10.0, 10.0])
    logits = PackedLlama.logits
    monkeypatch.setattr(PackedLlama, "logits", lambda model, hidden: logits(model, hidden) + bias)
    context = Context(document="d", prefix="if f(a", suffix="\n    pass\n", path="f.py", max_middle_tokens=4)
    [candidate] = engine.ranked(context, never(), options=SHOWN)
    assert candidate.proposal.text == "):" and candidate.features is not None
    prompt = [PREFIX, *tokenizer.encode("if f("), SUFFIX, *tokenizer.encode(context.suffix), MIDDLE]
    [letter] = tokenizer.encode("a")
    with torch.no_grad():
        scores = checkpoint.reference(torch.tensor([[*prompt, letter, last]])).logits[0, len(prompt) - 1 :] + bias
    scores[:, [token_id for token_id in tokenizer.special_ids if token_id != END]] = -torch.inf
    probs = scores.softmax(-1)
    ends = [END, line_break, *map(TOKENS.index, ("č", "ĊĊ"))]
    # The healed text is given: the first token begins with the letter in any case.
    given = [place for place, text in enumerate(TOKENS) if text.startswith("a")]
    expected = probs[0, letter] / probs[0, given].sum() * (probs[1, last] * probs[2, ends].sum() + probs[1, joined])
    assert candidate.features.middle_sum == pytest.approx(math.log(expected), abs=1e-3)


def test_judged_line_may_end_with_the_rest_of_its_line(
    checkpoint: LlamaCheckpoint, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(checkpoint.gguf, DENSE, monkeypatch)
    [letter], *rest, [line_break] = map(tokenizer.encode, ("b", ")", "):", "):\n", "\n"))
    bias = torch.zeros(288)
    bias[letter] = 12.0
    logits = PackedLlama.logits
    monkeypatch.setattr(PackedLlama, "logits", lambda model, hidden: logits(model, hidden) + bias)
    context = Context(document="d", prefix="if f(a", suffix="):\n", path="f.py", max_middle_tokens=2)
    [candidate] = engine.ranked(context, never(), options=SHOWN)
    assert candidate.proposal.text == "b" and candidate.features is not None
    prompt = [PREFIX, *tokenizer.encode("if f("), SUFFIX, *tokenizer.encode(context.suffix), MIDDLE]
    [given] = tokenizer.encode("a")
    with torch.no_grad():
        scores = checkpoint.reference(torch.tensor([[*prompt, given, letter]])).logits[0, len(prompt) - 1 :] + bias
    scores[:, [token_id for token_id in tokenizer.special_ids if token_id != END]] = -torch.inf
    probs = scores.softmax(-1)
    ends = [END, line_break, *(token_id for [token_id] in rest), *map(TOKENS.index, ("č", "ĊĊ"))]
    assert candidate.features.end == pytest.approx(math.log(probs[2, ends].sum()), abs=1e-3)


@pytest.mark.parametrize(
    ("suffix", "again"),
    [("\n}\n", "\n}"), ("\n\n    following_line = 1\n", "\n\n    followin"), ("}\n", "}"), ("\n \n", None), ("", None)],
)
def test_block_may_end_with_what_stands_after_it(
    checkpoint: LlamaCheckpoint,
    tokenizer: Tokenizer,
    suffix: str,
    again: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model that writes the text after the cursor again has ended its block there; a line has its own ends."""
    engine = load(checkpoint.gguf, DENSE, monkeypatch)
    [letter] = tokenizer.encode("b")
    bias = torch.zeros(288)
    bias[letter] = 12.0
    logits = PackedLlama.logits
    monkeypatch.setattr(PackedLlama, "logits", lambda model, hidden: logits(model, hidden) + bias)
    judged: list[Branch] = []

    def recorded(*arguments: Any, **options: Any) -> list[Likelihood]:
        judged.extend(arguments[3])
        return likelihoods(*arguments, **options)

    monkeypatch.setattr(ranker, "likelihoods", recorded)
    asked = Context(document="d", prefix="f(a) {", suffix=suffix, path="f.txt", max_middle_tokens=4)
    engine.ranked(asked, never(), options=SHOWN)
    assert judged and not any(branch.again_ids for branch in judged)
    judged.clear()
    engine.ranked(replace(asked, extent=Extent.BLOCK), never(), options=SHOWN)
    assert judged
    for branch in judged:
        expected = "" if again is None else tokenizer.decode(branch.middle_ids) + again
        assert tokenizer.decode(branch.again_ids) == expected
