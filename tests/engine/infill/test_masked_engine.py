"""Masked diffusion in the engine: from a request to its answer with a model that has no causal mode."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.cli import main
from dgemma_engine.families.llama.decoder import Decoder
from dgemma_engine.families.masked.block_model import BlockModel
from dgemma_engine.families.masked.model import MaskedModel
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.options import Decode, InfillOptions
from dgemma_engine.protocol.messages import CandidateSource, Context, Draft, Extent, Finish, Infill
from dgemma_engine.scheduling.timing import Cancel

from tests.masked_checkpoints import BLOCK_KINDS, END, EXPAND, KINDS, MASK, make_masked, vocabulary

BEFORE, AFTER = "def f(a):\n    return a.", "\n\n\nprint(f(1))\n"


@pytest.fixture(scope="module", params=[*KINDS, *BLOCK_KINDS])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = "block_tokens" if request.param in BLOCK_KINDS else "masked"
    return make_masked(tmp_path_factory.mktemp(name), request.param, num_hidden_layers=2).folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return load(folder)


@pytest.fixture(scope="module")
def dream(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return load(make_masked(tmp_path_factory.mktemp("dream"), "dream", num_hidden_layers=2).folder)


@pytest.fixture(autouse=True)
def letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes letters the likeliest tokens, so that a random model's text is a name and adds no syntax error."""
    letter_ids, raw_logits = [vocabulary()[chr(code)] for code in range(ord("a"), ord("z") + 1)], Decoder.raw_logits

    def preferred(model: Decoder, hidden_ND: torch.Tensor) -> torch.Tensor:
        logits_NV = raw_logits(model, hidden_ND)
        logits_NV[:, letter_ids] += 50.0
        return logits_NV

    monkeypatch.setattr(Decoder, "raw_logits", preferred)


def load(folder: Path) -> Engine:
    return Engine.load(folder, device="cpu", report=lambda _percent, _message: None)


def never() -> Cancel:
    return Cancel(deadline_s=1e9, clock=lambda: 0.0)


def ask(engine: Engine, before: str = BEFORE, after: str = AFTER, **options: Any) -> Infill:
    context = Context(document="d", prefix=before, suffix=after, path="f.py", **options)
    return engine.infill(context, never(), options=InfillOptions(silence=False))


@pytest.mark.parametrize("extent", list(Extent))
def test_engine_fills_a_hole_on_canvases_alone(engine: Engine, extent: Extent) -> None:
    answer = ask(engine, extent=extent, max_middle_tokens=16)
    assert answer.finish is Finish.STABLE
    assert answer.steps > 1
    assert answer.text.isalpha() and answer.text.islower()
    assert {candidate.source for candidate in answer.candidates} == {CandidateSource.DIFFUSION}
    assert all(0 < candidate.score < 1 for candidate in answer.candidates)


@pytest.mark.parametrize(
    ("before", "after"),
    [("", ""), ("", "x\n"), ("x = ", ""), ("<|mask|><M>", "<|fim_prefix|>\n"), ("e\u0301", "\u00e9")],
)
def test_any_text_is_answered(engine: Engine, before: str, after: str) -> None:
    for extent in Extent:
        text = ask(engine, before, after, extent=extent, max_middle_tokens=8).text
        assert "<|" not in text and "<M>" not in text


def test_text_that_was_typed_goes_on(engine: Engine) -> None:
    """The last token of the prefix is generated again (token healing); the text begins at the cursor all the same."""
    found = engine.ranked(
        Context(document="d", prefix="x = de", suffix="\n", path="f.py"), never(), options=InfillOptions(seeds=False)
    )
    assert found and all(candidate.features is not None for candidate in found)
    assert all(candidate.proposal.text.isalpha() for candidate in found)


def test_suffix_changes_the_answer(dream: Engine) -> None:
    answers = {ask(dream, after=f"\nprint({name})\n" * 4).text for name in ("f(1)", "other", "[]", "x + y")}
    assert len(answers) > 1


def test_same_request_gets_the_same_answer(dream: Engine) -> None:
    assert len({ask(dream, seed=seed).text for seed in (1, 1, 2)}) == 1, "nothing is drawn"


def test_every_decoding_is_by_canvas(dream: Engine) -> None:
    context = Context(document="d", prefix=BEFORE, suffix=AFTER, path="f.py", max_middle_tokens=8)
    answers = [
        dream.infill(context, never(), options=InfillOptions(decode=decode, silence=False)).text for decode in Decode
    ]
    assert len(set(answers)) == 1


def prefer(monkeypatch: pytest.MonkeyPatch, liked: dict[int, float]) -> None:
    """Adds to the logits of some tokens."""
    raw_logits = Decoder.raw_logits

    def preferred(model: Decoder, hidden_ND: torch.Tensor) -> torch.Tensor:
        logits_NV = raw_logits(model, hidden_ND)
        for token_id, extra in liked.items():
            logits_NV[:, token_id] += extra
        return logits_NV

    monkeypatch.setattr(Decoder, "raw_logits", preferred)


def test_middle_of_blocks_ends_with_the_token_that_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_blocks: list[tuple[int, int]]
) -> None:
    """The prompt is encoded once, and a row that ended makes no further step."""
    engine = load(make_masked(tmp_path, "stable-diffcoder", num_hidden_layers=2).folder)
    ended, num_steps = 0, list[int]()
    for extra in (51.0, 52.0, 53.0):
        with monkeypatch.context() as patched:
            prefer(patched, {END: extra})
            answer = ask(engine)
        num_steps.append(answer.steps)
        ended += bool(answer.text) and len(answer.text) < 14
        assert "<|" not in answer.text and "<[" not in answer.text
    assert ended
    assert min(num_steps) < 8
    _warm_up, (num_first, num_before) = num_blocks
    assert num_first > 16 and not num_before
    ask(engine, f"{BEFORE}ab")
    [(num_new, num_kept)] = num_blocks[2:]
    assert (num_new, num_kept) == (3, num_first - 1), "two letters and the mark of the middle"


@pytest.fixture
def num_blocks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Number of tokens that each `prefill` was given, and of those that the cache held."""
    counts, prefill = list[tuple[int, int]](), BlockModel.prefill

    def recorded(model: BlockModel, ids_BT: torch.Tensor, cache: Any) -> None:
        counts.append((ids_BT.shape[1], cache.length))
        prefill(model, ids_BT, cache)

    monkeypatch.setattr(BlockModel, "prefill", recorded)
    return counts


def test_canvas_that_grows_and_shrinks_answers_with_text_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_masks: list[int]
) -> None:
    engine = load(make_masked(tmp_path, "dreamon", num_hidden_layers=2).folder)
    lengths = set[int]()
    for liked in ({}, {EXPAND: 54.0}, {END: 54.0}, {EXPAND: 53.0, END: 53.0}):
        num_masks.clear()
        with monkeypatch.context() as patched:
            prefer(patched, liked)
            answer = ask(engine)
        assert num_masks[0] == 8 + 16, "two lengths to begin with"
        assert "<|" not in answer.text
        lengths |= {len(candidate.text) for candidate in answer.candidates}
    assert max(lengths) > 16
    assert min(lengths) < 7


@pytest.fixture
def num_masks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of masks of each canvas that a model decodes."""
    counts, decode = list[int](), MaskedModel.decode

    def recorded(model: MaskedModel, canvas_BL: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        counts.append(int((canvas_BL == MASK).sum()))
        return decode(model, canvas_BL, *arguments, **options)

    monkeypatch.setattr(MaskedModel, "decode", recorded)
    return counts


@pytest.mark.parametrize("num_tokens", [1, 5, 12])
def test_known_length_is_kept(dream: Engine, num_masks: list[int], num_tokens: int) -> None:
    context = Context(document="d", prefix=BEFORE, suffix=AFTER, path="f.py")
    options = InfillOptions(slot_tokens=num_tokens, silence=False, seeds=False)
    answer = dream.infill(context, never(), options=options)
    steps = num_masks[: answer.steps]
    assert steps == sorted(steps, reverse=True) and steps[0] == num_tokens
    assert answer.steps == min(8, num_tokens)


def test_text_found_elsewhere_is_judged_and_starts_no_row(dream: Engine, num_masks: list[int]) -> None:
    before = "value = compute(alpha, beta)\n" * 3 + "value = compute(al"
    context = Context(document="d", prefix=before, suffix="\nprint(value)\n", path="f.py")
    found = dream.ranked(context, never())
    assert CandidateSource.SEED in {candidate.proposal.source for candidate in found}
    assert num_masks[0] == sum((*range(1, 17), 20, 24, 32)), "each length once: nothing is drawn"


def test_deadline_gives_the_best_of_the_steps_that_were_made(dream: Engine) -> None:
    finishes, context = list[tuple[Finish, int]](), Context(document="d", prefix=BEFORE, suffix=AFTER, path="f.py")
    for most in range(1, 40):
        ticks = itertools.count()
        cancel = Cancel(deadline_s=float(most), clock=lambda ticks=ticks: float(next(ticks)))
        answer = dream.infill(context, cancel, options=InfillOptions(silence=False))
        finishes.append((answer.finish, answer.steps))
        assert bool(answer.text) == bool(answer.steps)
    assert finishes[0] == (Finish.DEADLINE, 0)
    assert any(finish is Finish.DEADLINE and steps for finish, steps in finishes)
    assert finishes[-1][0] is Finish.STABLE
    late = dream.infill(Context(document="d", prefix="x", suffix=""), Cancel(deadline_s=0.0, clock=lambda: 1.0))
    assert (late.finish, late.text) == (Finish.DEADLINE, "")


def test_cancelled_while_denoising_makes_no_further_step(dream: Engine) -> None:
    cancel, drafts = never(), list[Draft]()

    def on_draft(draft: Draft) -> None:
        drafts.append(draft)
        cancel.set()

    context = Context(document="d", prefix=BEFORE, suffix=AFTER, path="f.py", drafts="d")
    answer = dream.infill(context, cancel, on_draft)
    assert (answer.finish, answer.text, len(drafts)) == (Finish.CANCELLED, "", 1)


def test_plan_counts_the_window_or_the_keys_of_a_prompt(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(folder), "--device", "cpu"]) == 0
    out, has_blocks = capsys.readouterr().out, "block_tokens" in folder.name
    assert "weights: attention" in out
    assert ("passes over windows of 512 tokens" in out) == (not has_blocks)
    assert ("keys and values of 512 tokens" in out) == has_blocks
    assert main(["plan", str(folder), "--device", "cpu", "--context", "513"]) == 1
    assert "a context of 513 tokens cannot be planned" in capsys.readouterr().err


def test_eval_fills_holes_with_a_length_searched_for_and_with_the_true_one(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hole = {
        "task_id": "1", "kind": "line", "prefix": "x = ", "suffix": "\nprint(x)\n", "middle": "[1, 2]",
        "path": "f.py", "language": "python",
    }  # fmt: skip
    holes = tmp_path / "holes.jsonl"
    holes.write_text(json.dumps(hole) + "\n")
    for length in ("auto", "oracle"):
        assert main(["eval", str(holes), "--model", str(folder), "--device", "cpu", "--length", length]) == 0
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (result["n"], result["recipe"]["length"]) == (1, length)
        assert result["steps_mean"] > 0
