"""The engine from request to answer, on small random checkpoints: texts are random, the rules of answers hold."""

from __future__ import annotations

import json
import math
import shutil
import string
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.backends.cpu.model import CpuModel
from dgemma_engine.backends.select import load_runnable
from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.checkpoint.features import NAMES
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.diffusion.sampler_config import load_sampler
from dgemma_engine.errors import CheckpointError
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.options import Decode, InfillOptions
from dgemma_engine.model.canvas_pass import CanvasPass
from dgemma_engine.prompting.prefix_cache import PromptStore
from dgemma_engine.protocol.messages import Candidate, CandidateSource, Context, Draft, Extent, Finish
from dgemma_engine.scheduling.timing import Cancel, DurationEstimator
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
)


@pytest.fixture(scope="module")
def folder(make_checkpoint: Callable[..., Any]) -> Path:
    checkpoint = make_checkpoint(seed=21, spread=0.1, canvas_length=32)
    with torch.no_grad():
        # Only printable ASCII is likely: most random byte strings are not valid text, and invalid text is not shown.
        likely = torch.tensor([*Tokenizer.load(checkpoint.folder).encode(string.printable[:95]), 7, 8])
        unlikely = torch.ones(320, dtype=torch.bool).index_fill(0, likely, value=False)
        checkpoint.reference.model.decoder.embed_tokens.weight[unlikely] *= 0.01
    checkpoint.reference.save_pretrained(checkpoint.folder)
    FORMAT.save(checkpoint.folder)
    values = {"max_denoising_steps": 6, "sampler_config": {"entropy_bound": 2.0}, "confidence_threshold": 4.0}
    (checkpoint.folder / "generation_config.json").write_text(json.dumps(values))
    return checkpoint.folder


def load(folder: Path, device: str = "cpu") -> Engine:
    return Engine.load(folder, device=device, report=lambda _percent, _message: None)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    cpu = torch.device("cpu")
    return load_runnable(folder, device=cpu, ops=None, prompt_tokens=64, report=lambda _percent: None)


@pytest.fixture(scope="module")
def build(folder: Path, model: Any) -> Callable[..., Engine]:
    """Returns a function that builds an engine, with given parts in place of the folder's."""

    def build(*, calibration: Calibration | None = None, **parts: Any) -> Engine:
        return Engine(
            model, Tokenizer.load(folder), FORMAT, load_sampler(folder, model.config.vocab_size),
            calibration or Calibration.default(), name="built", path=str(folder), **parts,
        )  # fmt: skip

    return build


@pytest.fixture(scope="module")
def engine(build: Callable[..., Engine]) -> Engine:
    return build()


class WatchedPrompts(PromptStore):
    """A prompt store that records how many tokens each returned cache lacked."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.lacking: list[int] = []
        self.last: tuple[Any, list[int]] | None = None

    def encoded(self, document: str, ids: list[int], cancel: Cancel, **options: Any) -> Any:
        cache = yield from super().encoded(document, ids, cancel, **options)
        if cache is not None:
            self.lacking.append(len(ids) - cache.length)
            self.last = cache, ids
        return cache


def ask(engine: Engine, before: str, after: str, **options: Any) -> Any:
    context = Context(document="a", prefix=before, suffix=after, **options)
    return engine.infill(context, Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic))


def test_two_interleaved_documents_get_the_answers_that_each_gets_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [
        Context(document="a", prefix="def f(", suffix="):\n    pass\n", extent=Extent.LINE),
        Context(document="b", prefix="x = 1\n" * 40 + "y = ", suffix="\n", extent=Extent.BLOCK),
    ]
    engine, unhurried = load(folder), Cancel(deadline_s=600.0, clock=lambda: 0.0)
    alone = [engine.infill(question, unhurried) for question in questions]
    works = [engine.filling(question, unhurried) for question in questions]
    num_together: list[int] = []
    decode_together = CpuModel.decode_together

    def counting(model: CpuModel, passes: Sequence[CanvasPass]) -> list[torch.Tensor]:
        num_together.append(len(passes))
        return decode_together(model, passes)

    monkeypatch.setattr(CpuModel, "decode_together", counting)
    together: dict[int, Any] = {}
    while len(together) < len(works):
        for index, work in enumerate(works):
            if index not in together:
                try:
                    next(work)
                except StopIteration as end:
                    together[index] = end.value
    assert [together[index].text for index in range(2)] == [infill.text for infill in alone]
    assert [together[index].steps for index in range(2)] == [infill.steps for infill in alone]
    assert all(infill.steps > 1 for infill in alone)
    assert num_together and set(num_together) == {2}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def f(", "):\n    pass\n"),
        ("", ""),
        ("x = ", ""),
        ("", "x = 1\n"),
        ("# \U0001f600 e\u0301 ", "\r\n"),
        ("a\x00b", "\x00"),
        ("lone \ud800 surrogate", "\udfff"),
        ("<fill><|prefix|><eos>", "<more>"),
        ("x" * 50_000, "y" * 50_000),
        ("x = 1\n" * 50_000 + "y = ", "\n" + "z = 2\n" * 50_000),
        ("def f(", ") -> " + "very_long_name_" * 400),
    ],
)
@pytest.mark.parametrize("extent", list(Extent))
def test_any_text_is_answered(engine: Engine, before: str, after: str, extent: Extent) -> None:
    infill = ask(engine, before, after, extent=extent)
    assert infill.steps >= 1
    assert infill.finish in {Finish.STABLE, Finish.STEP_LIMIT, Finish.EMPTY}
    assert bool(infill.text) == (infill.score > 0)
    assert "\ufffd" not in infill.text
    assert not any(special in infill.text for special in ("<pad>", "<fill>", "<more>", "<mask>"))
    if extent is Extent.LINE:
        assert len(infill.text.splitlines()) <= 1
    assert set(infill.timings_ms) == {"tokenize", "encode", "propose", "denoise", "rank", "total"}
    assert infill.forwards >= infill.steps


def test_same_seed_gives_the_same_text(engine: Engine) -> None:
    texts = [ask(engine, "def f(", "):\n", seed=seed, extent=Extent.BLOCK).text for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_suffix_changes_the_answer(engine: Engine) -> None:
    texts = {ask(engine, "value = ", after, extent=Extent.BLOCK).text for after in ("\nprint(1)", "]\n", ")", "\n\n}")}
    assert len(texts) > 1


def test_request_cancelled_before_it_starts_makes_no_step(engine: Engine) -> None:
    cancel = Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)
    cancel.set()
    steps = engine.denoising_steps
    infill = engine.infill(Context(document="a", prefix="x", suffix=""), cancel)
    assert (infill.finish, infill.text, engine.denoising_steps - steps) == (Finish.CANCELLED, "", 0)


def test_deadline_already_past_makes_no_step(engine: Engine) -> None:
    infill = engine.infill(Context(document="a", prefix="x", suffix=""), Cancel(deadline_s=0, clock=time.monotonic))
    assert (infill.finish, infill.text, infill.steps) == (Finish.DEADLINE, "", 0)


@pytest.mark.parametrize(
    ("least", "calibrated", "shown"), [(0.0, False, True), (1.0, False, False), (0.0, True, False)]
)
def test_draft_at_the_deadline_is_shown_if_its_score_suffices(
    build: Callable[..., Engine], least: float, calibrated: bool, shown: bool
) -> None:
    weights = tuple((name, 0.0) for name in NAMES) if calibrated else None
    picky = build(calibration=replace(Calibration.default(), weights=weights), least_draft_score=least)
    texts: list[str] = []
    for seed in range(8):
        ticks = iter(range(1000))
        infill = picky.infill(
            Context(document="a", prefix="x", suffix="", seed=seed, extent=Extent.BLOCK),
            # The clock ticks at each reading: the deadline passes after the first candidates, before the ranking.
            Cancel(deadline_s=4.5, clock=lambda ticks=ticks: float(next(ticks))),
        )
        assert infill.finish is Finish.DEADLINE
        texts.append(infill.text)
    assert any(texts) == shown


def test_middle_that_does_not_fit_gets_a_larger_slot(engine: Engine) -> None:
    steps = {ask(engine, "def f(", "):\n", seed=seed, max_middle_tokens=4).steps for seed in range(6)}
    grown = {ask(engine, "def f(", "):\n", seed=seed, max_middle_tokens=64).steps for seed in range(6)}
    assert max(steps) <= 6 < max(grown)


def test_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "model"))
    content = json.loads((other / "tokenizer.json").read_text())
    for i in range(100):
        content["model"]["vocab"][f"zz{i}"] = 272 + i
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has 372 tokens, config\.json a vocab_size of 320"):
        load(other)


@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_bad_tokenizer_file_is_named(folder: Path, tmp_path: Path, damage: str) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "model"))
    if damage == "missing":
        (other / "tokenizer.json").unlink()
    else:
        (other / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: (missing|damaged)"):
        load(other)


def test_bad_sampler_value_is_named(folder: Path, tmp_path: Path, edit_json: Callable[..., None]) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "model"))
    edit_json(other / "generation_config.json", 0, "max_denoising_steps")
    with pytest.raises(CheckpointError, match=r"generation_config\.json: max_denoising_steps=0 must be at least 1"):
        load(other)


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "nonsense"])
def test_bad_device_is_named(folder: Path, device: str) -> None:
    with pytest.raises(CheckpointError, match=f"device '{device}' is not"):
        load(folder, device)


@pytest.mark.parametrize("canvas_length", [2, 16, 64])
def test_checkpoint_without_fill_token_answers(canvas_length: int, make_checkpoint: Callable[..., Any]) -> None:
    checkpoint = make_checkpoint(seed=22, spread=0.1, canvas_length=canvas_length)
    engine = load(checkpoint.folder)
    infill = ask(engine, "def f(", "):\n    return 1\n", extent=Extent.BLOCK)
    assert infill.steps >= 1


def ask_all(engine: Engine, before: str, after: str, recipe: InfillOptions, **options: Any) -> Any:
    context = Context(document="a", prefix=before, suffix=after, **options)
    cancel = Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)
    return engine.infill(context, cancel, options=recipe)


def test_shown_text_is_the_best_candidate(engine: Engine) -> None:
    infill = ask(engine, "total = ", "\nprint(total)\n")
    assert infill.candidates[0].text == infill.text
    scores = [candidate.score for candidate in infill.candidates]
    assert scores == sorted(scores, reverse=True)
    assert infill.score == scores[0]


def test_candidates_have_the_shape_that_is_shown(engine: Engine) -> None:
    """The seed leaves a bracket open, which nothing in the document closes."""
    recipe = InfillOptions(silence=False)
    infill = ask_all(engine, "self.first.configure(1\nother()\nself.first.", "\n", recipe, language="python")
    seeds = [one.text for one in infill.candidates if one.source is CandidateSource.SEED]
    assert seeds == ["configure(1)"]


REPEATED = "self.first.configure(1)\nother()\nself.first."


def test_text_that_stands_elsewhere_is_a_candidate(engine: Engine) -> None:
    context = Context(document="a", prefix=REPEATED, suffix="\n")
    for seeds in (True, False):
        ranked = engine.ranked(context, unhurried(), options=InfillOptions(seeds=seeds))
        found = [one for one in ranked if one.proposal.text == "configure(1)"]
        assert bool(found) == seeds


def test_left_to_right_alone_makes_no_denoising_step(engine: Engine) -> None:
    recipe = InfillOptions(decode=Decode.LEFT_TO_RIGHT, seeds=False, silence=False)
    infill = ask_all(engine, "total = ", "\nprint(total)\n", recipe)
    assert (infill.steps, infill.forwards > 1) == (0, True)
    assert {candidate.source for candidate in infill.candidates} <= {CandidateSource.LEFT_TO_RIGHT}


@pytest.mark.parametrize("fill", [True, False])
@pytest.mark.parametrize("size", [2, 3, 9])
def test_known_length_is_kept(engine: Engine, size: int, fill: bool) -> None:
    recipe = InfillOptions(decode=Decode.DIFFUSION, slot_tokens=size, seeds=False, silence=False, fill=fill)
    options = {"extent": Extent.BLOCK, "language": "plaintext"}
    texts = [ask_all(engine, "a.b, ", ")\n", recipe, seed=seed, **options).text for seed in range(4)]
    assert any(texts)
    # Every token of this tokenizer is one byte, of which the first is the space the cursor stands after.
    # The shape that is shown may end sooner, and closes what the middle opens; in prose it closes nothing.
    assert max(map(len, texts)) in {size - 1, size}


@pytest.mark.parametrize(
    ("before", "after"), [("self.fo", "\n"), ("x = fo", ")\n"), ("    ", "\ny"), ("fo", "o = 1\n")]
)
@pytest.mark.parametrize("fill", [True, False])
def test_middle_goes_on_from_what_was_typed(engine: Engine, before: str, after: str, fill: bool) -> None:
    """Rows that must begin with the typed text give answers; test_task.py tests how that text is cut off."""
    recipe = InfillOptions(decode=Decode.DIFFUSION, seeds=False, silence=False, fill=fill)
    infills = [ask_all(engine, before, after, recipe, seed=seed, extent=Extent.BLOCK) for seed in range(4)]
    assert any(infill.text for infill in infills)


@pytest.mark.parametrize("decode", Decode)
@pytest.mark.parametrize("most", [1, 3, 6])
def test_limit_of_tokens_is_kept_by_every_source_and_every_draft(engine: Engine, decode: Decode, most: int) -> None:
    recipe = InfillOptions(decode=decode, silence=False)
    before = "self.value = compute(first)\nother = 1\n" * 2 + "self.value = "
    found: list[Candidate] = []
    drafts: list[Draft] = []
    for seed in range(4):
        context = Context(
            document="a", prefix=before, suffix="\n", seed=seed, max_middle_tokens=most, drafts="d", on_demand=True
        )
        infill = engine.infill(context, unhurried(), drafts.append, options=recipe)
        found += infill.candidates
    # Every token of this tokenizer is one byte.
    assert found and {len(one.text) == one.num_tokens <= most for one in found} == {True}
    assert all(len(one.text) <= most for one in drafts)
    elsewhere = [one for one in found if one.source is CandidateSource.SEED]
    assert {one.text: one.is_cut for one in elsewhere} == {"compute"[:most]: True}


@pytest.mark.parametrize(
    ("decode", "slot_tokens", "is_cut"),
    # A row of known length has its end; the random model ends nothing within four tokens.
    [(Decode.DIFFUSION, 3, False), (Decode.DIFFUSION, None, True), (Decode.LEFT_TO_RIGHT, None, True)],
)
def test_candidate_that_its_source_did_not_end_is_cut(
    engine: Engine, decode: Decode, slot_tokens: int | None, is_cut: bool
) -> None:
    recipe = InfillOptions(decode=decode, slot_tokens=slot_tokens, seeds=False, silence=False)
    found = [
        candidate
        for before in ("", "x", "total = ")
        for candidate in ask_all(engine, before, "\nprint(total)\n", recipe, max_middle_tokens=4).candidates
    ]
    assert is_cut in {one.is_cut for one in found}


def test_middle_longer_than_the_largest_slot_goes_on_in_further_blocks(engine: Engine) -> None:
    def lengths(most: int) -> list[int]:
        recipe = InfillOptions(decode=Decode.DIFFUSION, seeds=False, silence=False)
        return [
            len(ask_all(engine, "f(", ")\n", recipe, seed=seed, extent=Extent.BLOCK, max_middle_tokens=most).text)
            for seed in range(6)
        ]

    # A further block is begun while there is room for one more token, and is as long as the largest slot.
    assert max(lengths(24)) < 24 + 24 < max(lengths(96))


def test_further_blocks_leave_the_prompt_as_it_was(engine: Engine) -> None:
    options: dict[str, Any] = {"extent": Extent.BLOCK, "max_middle_tokens": 96, "seed": 3}
    first = ask(engine, "f(", ")\n", **options)
    assert ask(engine, "f(", ")\n", **options).text == first.text


def test_drafts_come_before_the_answer_and_only_when_asked_for(engine: Engine) -> None:
    for drafts in ("", "d1"):
        seen: list[Draft] = []
        context = Context(document="a", prefix="total = ", suffix="\nx", drafts=drafts)
        infill = engine.infill(context, unhurried(), seen.append)
        assert len(seen) == (infill.steps if drafts else 0)
        assert [draft.step for draft in seen] == sorted(draft.step for draft in seen)
        assert {draft.request for draft in seen} <= {drafts}
        assert all(draft.step <= draft.steps_limit for draft in seen)
        assert [draft.steps_limit for draft in seen][:1] == ([4] if drafts else [])


def test_cancel_while_denoising_makes_no_further_step(engine: Engine) -> None:
    cancel = unhurried()
    context = Context(document="a", prefix="total = ", suffix="\nx", drafts="d1")
    infill = engine.infill(context, cancel, lambda _draft: cancel.set())
    assert (infill.finish, infill.text, infill.steps, infill.forwards) == (Finish.CANCELLED, "", 1, 1)


@pytest.mark.parametrize("finish", [Finish.CANCELLED, Finish.DEADLINE])
def test_request_stopped_while_the_prompt_is_encoded_names_the_reason(
    engine: Engine, model: Any, monkeypatch: pytest.MonkeyPatch, finish: Finish
) -> None:
    """`finish` is the reason; a request whose prompt is unfinished does not finish as empty."""
    now_s = [0.0]
    cancel = Cancel(deadline_s=1.0, clock=lambda: now_s[0])
    prefill = model.prefill

    def stopping(*args: Any) -> None:
        prefill(*args)
        if finish is Finish.CANCELLED:
            cancel.set()
        else:
            now_s[0] = 2.0

    monkeypatch.setattr("dgemma_engine.prompting.prefix_cache.PIECE_TOKENS", {"cpu": 4})
    monkeypatch.setattr(model, "prefill", stopping)
    infill = engine.infill(Context(document="unseen", prefix="total = first + " * 5, suffix="\nx"), cancel)
    assert (infill.finish, infill.text, infill.steps) == (finish, "", 0)


def test_second_request_without_a_deadline_makes_steps(engine: Engine) -> None:
    context = Context(document="a", prefix="total = ", suffix="\nx")
    for _ in range(2):
        assert engine.infill(context, Cancel(deadline_s=math.inf, clock=lambda: 0.0)).steps > 0


def test_the_first_step_encodes_what_was_typed(
    build: Callable[..., Engine], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed tokens join the first denoising step, which saves a pass for each key."""
    prompts = WatchedPrompts(model)
    engine = build(prompts=prompts)
    before, after = (Context(document="a", prefix=prefix, suffix="\nx") for prefix in ("total = f", "total = f + g("))
    engine.infill(before, unhurried())
    with monkeypatch.context() as patch:
        patch.setattr("dgemma_engine.infill.pipeline.JOINED_TOKENS", {"cpu": 0})
        fresh = engine.infill(after, unhurried())
    engine.infill(before, unhurried())
    monkeypatch.setattr(model, "prefill", lambda *_args: 1 / 0)
    joined = engine.infill(after, unhurried())
    assert (joined.text, joined.forwards, joined.steps) == (fresh.text, fresh.forwards, fresh.steps)
    assert prompts.last is not None
    cache, ids = prompts.last
    assert (prompts.lacking[-1] > 0, cache.length) == (True, len(ids))


def test_candidates_are_ranked_after_the_whole_prompt_when_no_step_was_made(
    build: Callable[..., Engine], model: Any
) -> None:
    before, after = (Context(document="a", prefix=prefix, suffix="\nx") for prefix in ("total = f", "total = f + g("))
    durations, prompts = DurationEstimator(), WatchedPrompts(model)
    engine = build(durations=durations, prompts=prompts)
    engine.infill(before, unhurried())
    for _ in range(50):
        durations.add("rank", 700.0)
    assert engine.infill(after, unhurried()).steps == 0
    lacking_first, lacking_for_ranking = prompts.lacking[-2:]
    assert (lacking_first > 0, lacking_for_ranking) == (True, 0)


def test_threshold_keeps_weak_answers_back(build: Callable[..., Engine]) -> None:
    strict = build(calibration=replace(Calibration.default(), threshold=1.0))
    infill = ask(strict, "total = ", "\nprint(total)\n")
    assert (infill.text, infill.score, infill.candidates, infill.finish) == ("", 0.0, (), Finish.EMPTY)
    insisted = ask(strict, "total = ", "\nprint(total)\n", insistent=True)
    assert insisted.text, "`insistent` overrides the threshold"
    assert insisted.unlikely


def test_insistent_answer_above_the_threshold_is_not_unlikely(build: Callable[..., Engine]) -> None:
    engine = build(calibration=replace(Calibration.default(), threshold=0.0))
    infill = ask(engine, "total = ", "\nprint(total)\n", insistent=True)
    assert infill.text
    assert not infill.unlikely


def test_on_demand_the_best_are_answered_however_unlikely(build: Callable[..., Engine]) -> None:
    engine = build(calibration=replace(Calibration.default(), threshold=1.0))
    assert ask(engine, "a = ", "\n", seed=1).candidates == ()
    answer = ask(engine, "a = ", "\n", seed=1, on_demand=True)
    assert 0 < len(answer.candidates) <= 5


def test_requests_served_between_the_steps_of_a_fill_change_nothing(engine: Engine) -> None:
    long = {"extent": Extent.BLOCK, "max_middle_tokens": 60, "on_demand": True, "seed": 3}
    alone = ask(engine, "def f(a):\n    ", "\n", **long)
    served: list[Any] = []
    context = Context(document="a", prefix="def f(a):\n    ", suffix="\n", **long)
    work, answer = engine.filling(context, unhurried()), None
    while answer is None:
        try:
            next(work)
        except StopIteration as end:
            answer = end.value
        else:
            served.append(engine.infill(Context(document="b", prefix="b = ", suffix="\n", seed=7), unhurried()))
    assert len(served) >= alone.steps > 1
    assert [one.text for one in answer.candidates] == [one.text for one in alone.candidates]
    between = engine.infill(Context(document="b", prefix="b = ", suffix="\n", seed=7), unhurried())
    assert {one.text for one in served} == {between.text}


def test_calibration_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "model"))
    replace(Calibration.default(), fingerprint="0" * 64).save(other)
    with pytest.raises(CheckpointError, match=r"calibration\.json.*another model.*dgemma-engine calibrate"):
        load(other)


def test_less_time_means_fewer_steps_over_the_whole_schedule(build: Callable[..., Engine]) -> None:
    for left_s, steps in ((2.5, 2), (0.5, 1), (600.0, 4)):
        durations, seen = DurationEstimator(), list[Draft]()
        durations.add("step", 1.0)
        context = Context(document="a", prefix="total = ", suffix="\nx", drafts="id")
        build(durations=durations).infill(context, Cancel(deadline_s=left_s, clock=lambda: 0.0), seen.append)
        assert seen[0].steps_limit == steps


def unhurried() -> Cancel:
    return Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)
