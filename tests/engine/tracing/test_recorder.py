"""Recordings of real requests to the embedded model: they describe every canvas and do not change the result."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.checkpoint.calibration import Calibration
from dgemma_engine.checkpoint.features import Features
from dgemma_engine.checkpoint.loader import load_model
from dgemma_engine.diffusion import canvas as canvases
from dgemma_engine.diffusion.canvas import Row
from dgemma_engine.diffusion.denoiser import Denoiser, Guess, ScoredStep, denoise
from dgemma_engine.diffusion.eager_executor import EagerExecutor
from dgemma_engine.diffusion.sampler import (
    EntropyBound,
    PositionScores,
    Sampler,
    StableAndConfident,
    TemperatureSchedule,
    UniformNoise,
)
from dgemma_engine.diffusion.sampler_config import load_sampler
from dgemma_engine.diffusion.step_executor import StepExecutor
from dgemma_engine.errors import EngineFault
from dgemma_engine.infill.candidate import Proposal, Ranked
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.options import Decode, InfillOptions
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.json_rpc import Peer
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.protocol.handshake import HELLO, PROTOCOL, Hello
from dgemma_engine.protocol.messages import CandidateSource, Context, Extent, Finish, Infill
from dgemma_engine.protocol.trace_messages import CanvasTrace, RowKind, RowStep, Trace, Verdict
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tokenization.tokenizer import Tokenizer
from dgemma_engine.tracing.recorder import Recorder

from tests.engine.fake_engine import context as question
from tests.engine.fake_engine import location_in, serving

FOLDER = model_folder("tiny")
CODE = Context(
    document="a",
    prefix="width = 3\nheight = 4\n\n\ndef area(width, height):\n    return width * height\n\n\nprint(area(",
    suffix="))\nprint(area(width, height))\n",
    path="area.py",
    language="python",
    deadline_ms=60_000,
)
SEVERAL = replace(CODE, prefix="def total(items):\n    ", suffix="\n", extent=Extent.BLOCK, max_middle_tokens=200)


def unhurried() -> Cancel:
    return Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(FOLDER, device="cpu", report=lambda _percent, _message: None)


@pytest.fixture(scope="module", params=[CODE, SEVERAL], ids=["line", "block"])
def asked(request: pytest.FixtureRequest) -> Context:
    return request.param


@pytest.fixture(scope="module")
def recorded(engine: Engine, asked: Context) -> tuple[Infill, Trace]:
    recorder = Recorder(time.monotonic)
    infill = engine.infill(asked, unhurried(), recorder=recorder)
    return infill, recorder.trace(infill)


def neighbours(canvas: CanvasTrace) -> list[tuple[RowStep, RowStep]]:
    """Returns every row's state at a step together with its state at the next step."""
    pairs: list[tuple[RowStep, RowStep]] = []
    for one, other in itertools.pairwise(canvas.steps):
        before = {row.row: row for row in one.rows}
        pairs += [(before[row.row], row) for row in other.rows]
    return pairs


def test_answer_is_the_one_without_a_recording(engine: Engine, asked: Context, recorded: tuple[Infill, Trace]) -> None:
    infill, trace = recorded
    plain = engine.infill(asked, unhurried())
    # The second request finds its prompt in the cache.
    ours, theirs = (replace(one, timings_ms={}, encoded_tokens=0) for one in (plain, infill))
    assert ours == theirs
    assert trace.infill == infill


def test_draft_stays_with_a_row_that_settled_and_left(engine: Engine) -> None:
    drafts: list[str] = []
    engine.infill(replace(CODE, drafts="d"), unhurried(), lambda draft: drafts.append(draft.text))
    assert drafts == ["width, height"] * 4


def test_every_step_is_recorded(recorded: tuple[Infill, Trace]) -> None:
    infill, trace = recorded
    assert sum(len(canvas.steps) for canvas in trace.canvases) == infill.steps > 0
    assert trace.num_left_out == 0
    for canvas in trace.canvases:
        assert len(canvas.steps) <= canvas.steps_limit
        assert all(step.elapsed_ms > 0 for step in canvas.steps)
        temperatures = [step.temperature for step in canvas.steps]
        assert temperatures == sorted(temperatures, reverse=True)
        assert temperatures[0] == load_sampler(FOLDER, 1).schedule.t_max


def test_kept_tokens_of_a_step_are_input_of_the_next(recorded: tuple[Infill, Trace]) -> None:
    pairs = [pair for canvas in recorded[1].canvases for pair in neighbours(canvas)]
    assert pairs
    for before, after in pairs:
        assert before.next_ids == after.seen_ids
        kept = [at for at, is_kept in enumerate(before.accepted) if is_kept]
        assert kept
        # A kept token was sampled from the distribution; at a position this certain it is mostly the likeliest one.
        same = sum(after.seen_ids[at] == before.best_ids[at] for at in kept)
        assert same >= len(kept) / 2


def test_accepted_are_those_that_the_policy_accepts(recorded: tuple[Infill, Trace]) -> None:
    policy = load_sampler(FOLDER, 1).acceptance
    for canvas in recorded[1].canvases:
        for step in canvas.steps:
            for row in step.rows:
                entropy, best = torch.tensor([row.entropy]), torch.tensor([row.best_ids])
                valid = torch.ones_like(best, dtype=torch.bool)
                wanted = policy.accept(PositionScores(best_RM=best, entropy_RM=entropy, valid_RM=valid))
                is_last = step is canvas.steps[-1]
                assert (row.accepted, row.next_ids) == ((), ()) if is_last else row.accepted == tuple(wanted[0].int())


def test_rows_end_when_they_are_settled_or_after_the_first_step(recorded: tuple[Infill, Trace]) -> None:
    for canvas in recorded[1].canvases:
        on_canvas = list(range(len(canvas.rows)))
        for number, step in enumerate(canvas.steps, start=1):
            assert [row.row for row in step.rows] == on_canvas
            following = canvas.steps[number].rows if number < len(canvas.steps) else ()
            going_on = [row.row for row in following]
            settled = {row.row for row in step.rows if row.settled}
            assert not settled & set(going_on)
            if 1 < number < len(canvas.steps):
                assert set(on_canvas) - set(going_on) == settled
            on_canvas = going_on


def test_left_to_right_generation_is_recorded(recorded: tuple[Infill, Trace]) -> None:
    infill, trace = recorded
    (writing,) = trace.writings
    assert writing.passes
    num_canvas_steps = sum(len(canvas.steps) for canvas in trace.canvases)
    assert infill.forwards - num_canvas_steps - len(writing.passes) in {0, 1}, "one more forward pass may rank"
    written = [token_id for one in writing.passes for token_id in one.ids]
    for one in writing.passes:
        assert one.elapsed_ms > 0
        assert one.ended == (one is writing.passes[-1] and bool(writing.text))
        assert one.num_agreed <= len(one.ids)
        for token_id, nats, others, shares in zip(
            one.ids, one.entropy, one.other_ids, one.other_probabilities, strict=True
        ):
            assert token_id == others[0]
            assert list(shares) == sorted(shares, reverse=True)
            assert 0 < sum(shares) <= 1 + 1e-5
            assert -1e-5 <= nats <= math.log(len(trace.tokens) + 10_000)
    for place, (said, drafted) in enumerate(zip(written, writing.draft_ids, strict=False)):
        first = writing.passes[0]
        if place < first.num_agreed:
            assert said == drafted
        if place == first.num_agreed:
            assert said != drafted == first.draft_id
    assert {str(token_id) for token_id in (*written, *writing.draft_ids)} <= {*trace.tokens, *trace.marks}


def test_left_to_right_candidate_is_the_generated_text(engine: Engine) -> None:
    """Without canvases every token takes a forward pass, and no draft is verified."""
    recorder = Recorder(time.monotonic)
    options = InfillOptions(decode=Decode.LEFT_TO_RIGHT, forks=False)
    infill = engine.infill(CODE, unhurried(), recorder=recorder, options=options)
    trace = recorder.trace(infill)
    (writing,) = trace.writings
    assert (trace.canvases, writing.draft_ids) == ((), ())
    assert all(len(one.ids) == 1 and one.num_agreed == 0 and one.draft_id == -1 for one in writing.passes)
    said = "".join(trace.tokens.get(str(one.ids[0]), "") for one in writing.passes if not one.ended)
    assert writing.text
    assert said.startswith(trace.begun + writing.text)
    assert writing.text in {candidate.text for candidate in trace.candidates}
    assert Trace.from_wire(json.loads(json.dumps(trace.to_wire()))) == trace


def test_guess_that_a_pass_refutes_is_spelled(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a pass checked without a draft is named like every other token, so that its page can be made."""
    monkeypatch.setattr(engine._model, "checked_at_once", 4)  # pyright: ignore[reportPrivateUsage]
    recorder = Recorder(time.monotonic)
    options = InfillOptions(decode=Decode.LEFT_TO_RIGHT, forks=False)
    trace = recorder.trace(engine.infill(CODE, unhurried(), recorder=recorder, options=options))
    (writing,) = trace.writings
    refuted = {str(one.draft_id) for one in writing.passes if one.draft_id >= 0}
    assert writing.draft_ids == () and refuted
    assert refuted <= {*trace.tokens, *trace.marks}


def test_recorded_probabilities_are_consistent(recorded: tuple[Infill, Trace]) -> None:
    for canvas in recorded[1].canvases:
        for row in (row for step in canvas.steps for row in step.rows):
            assert len(row.seen_ids) == canvas.rows[row.row].num_free
            for at, best in enumerate(row.best_ids):
                assert row.other_probabilities[at][0] == pytest.approx(row.confidence[at])
                assert best in row.other_ids[at]
                assert list(row.other_probabilities[at]) == sorted(row.other_probabilities[at], reverse=True)
                assert 0 <= sum(row.other_probabilities[at]) <= 1 + 1e-5
                assert 0 <= row.entropy[at] <= math.log(10_000)


def test_given_tokens_are_spelled(asked: Context, recorded: tuple[Infill, Trace]) -> None:
    _, trace = recorded
    tokenizer = Tokenizer.load(FOLDER)
    canvas = trace.canvases[0]
    for row in canvas.rows:
        assert row.head_ids == canvas.rows[0].head_ids
        suffix = "".join(trace.tokens[str(token_id)] for token_id in row.head_ids)
        assert suffix == tokenizer.decode(list(row.head_ids))
    if asked is CODE:
        seeded = [row for row in canvas.rows if row.kind is RowKind.SEED]
        assert [row.seed for row in seeded] == ["width, height"]
    assert trace.marks["7"] == "<fill>"


def test_candidates_record_their_outcome(recorded: tuple[Infill, Trace]) -> None:
    infill, trace = recorded
    scores = [candidate.score for candidate in trace.candidates]
    assert scores == sorted(scores, reverse=True)
    first = trace.candidates[0]
    if infill.text:
        assert (first.text, first.score, first.verdict) == (infill.text, infill.score, Verdict.SHOWN)
        assert first.score >= trace.threshold
    else:
        assert {candidate.verdict for candidate in trace.candidates} <= {Verdict.UNLIKELY, Verdict.SYNTAX}
        assert first.score < trace.threshold
    assert trace.is_calibrated
    for candidate in trace.candidates:
        is_judged = candidate.verdict is not Verdict.SYNTAX
        assert set(candidate.features) == (set(Features.__dataclass_fields__) if is_judged else set())


def test_final_tokens_are_shaped_to_a_candidate(recorded: tuple[Infill, Trace]) -> None:
    texts = {candidate.text for candidate in recorded[1].candidates}
    last = recorded[1].canvases[-1].steps[-1]
    # Shaping removes the indentation that is already there, and closes brackets.
    bare = {text.rstrip(")]}") for text in texts}
    assert any(row.text.lstrip().startswith(text) for row in last.rows for text in bare)


def test_message_crosses_the_socket_whole(recorded: tuple[Infill, Trace]) -> None:
    _, trace = recorded
    assert Trace.from_wire(json.loads(json.dumps(trace.to_wire()))) == trace


def test_long_recording_is_truncated_and_marked(engine: Engine) -> None:
    whole, part = Recorder(time.monotonic), Recorder(time.monotonic, most_positions=60)
    infill = engine.infill(CODE, unhurried(), recorder=whole)
    engine.infill(CODE, unhurried(), recorder=part)
    kept = sum(len(canvas.steps) for canvas in part.trace(infill).canvases)
    assert 0 < kept < infill.steps
    assert kept + part.trace(infill).num_left_out == infill.steps
    assert part.trace(infill).canvases[0].steps[0].rows == whole.trace(infill).canvases[0].steps[0].rows


def test_request_that_ended_before_its_canvas_has_an_empty_recording(engine: Engine) -> None:
    recorder, cancel = Recorder(time.monotonic), unhurried()
    cancel.set()
    infill = engine.infill(CODE, cancel, recorder=recorder)
    assert (infill.finish, recorder.trace(infill).canvases) == (Finish.CANCELLED, ())


def ranked(text: str, score: float, *, is_judged: bool = True) -> Ranked:
    features = Features(middle_mean=-1, middle_sum=-2, suffix_mean=-1) if is_judged else None
    return Ranked(proposal=Proposal(text=text, source=CandidateSource.DIFFUSION), score=score, features=features)


@pytest.mark.parametrize(
    ("judged", "is_shown", "verdicts"),
    [
        ([ranked("a", 0.9), ranked("b", 0.2)], True, ["shown", "behind", "syntax", "unjudged"]),
        ([ranked("a", 0.2), ranked("b", 0.1)], False, ["unlikely", "unlikely", "syntax", "unjudged"]),
        ([ranked("a", 0.2, is_judged=False)], False, ["unjudged", "unjudged", "syntax", "unjudged"]),
    ],
)
def test_verdict_of_each_candidate(judged: list[Ranked], is_shown: bool, verdicts: list[str]) -> None:
    recorder = Recorder(time.monotonic)
    recorder.weighed(
        [Proposal(text=text, source=CandidateSource.SEED) for text in ("a", "b", "((", "late")],
        judged,
        is_shown=is_shown,
        added_errors=lambda text, _covered: text.count("("),
        calibration=replace(Calibration.default(), threshold=0.5),
    )
    trace = recorder.trace(Infill(text="", finish=Finish.EMPTY))
    assert [candidate.verdict.value for candidate in trace.candidates] == verdicts
    assert (trace.threshold, trace.is_calibrated) == (0.5, False)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (RowStep, {"entropy": [1.0]}, "RowStep.entropy must have 2 values"),
        (RowStep, {"accepted": [1]}, "RowStep.accepted must have 2 values"),
        (RowStep, {"seen_ids": ["1", "2"]}, "RowStep.seen_ids.0. must be int, got str"),
        (RowStep, {"other_ids": 5}, "RowStep.other_ids must be a list"),
        (Trace, {"canvases": 5}, "Trace.canvases must be a list"),
    ],
)
def test_from_wire_names_the_field_that_does_not_fit(kind: Any, change: dict[str, Any], message: str) -> None:
    step = RowStep(
        row=0,
        seen_ids=(1, 2),
        best_ids=(1, 2),
        confidence=(1.0, 0.5),
        entropy=(0.0, 0.5),
        other_ids=((1,), (2,)),
        other_probabilities=((1.0,), (0.5,)),
        accepted=(),
        next_ids=(),
        settled=False,
        text="",
        mean_logprob=0.0,
    )
    wires = {RowStep: step, Trace: Recorder(time.monotonic).trace(Infill(text="", finish=Finish.EMPTY))}
    with pytest.raises(ValueError, match=message):
        kind.from_wire(wires[kind].to_wire() | change)


class Watching:
    """Passes each step to a recorder and keeps the canvas that the loop itself reports."""

    def __init__(self) -> None:
        self.recorder = Recorder(time.monotonic)
        self.canvases: list[torch.Tensor] = []

    def scored(self, step: ScoredStep, executor: StepExecutor) -> None:
        self.recorder.scored(step, executor)

    def renoised(self, accepted_RM: torch.Tensor, executor: StepExecutor) -> None:
        self.recorder.renoised(accepted_RM, executor)
        self.canvases.append(executor.tokens().clone())


def test_recording_equals_the_loops_state_row_by_row(make_checkpoint: Callable[..., Any]) -> None:
    model = load_model(
        make_checkpoint(seed=3, spread=0.1).folder, Ops.reference(), device=torch.device("cpu"), dtype=torch.float32
    )
    cache = PromptCache(model.config, capacity=8, dtype=torch.float32, device=model.device)
    with torch.no_grad():
        model.encode(torch.randint(0, 320, (1, 9), generator=torch.Generator().manual_seed(1)), cache)
    sampler = Sampler(
        num_steps=5,
        schedule=TemperatureSchedule(t_min=0.4, t_max=0.8),
        acceptance=EntropyBound(bound=2.0),
        noise=UniformNoise(vocab_size=320),
        stop=StableAndConfident(num_earlier=1, confidence=0.5),
    )
    rows = [Row(num_free=size, head_ids=(9, 9), opening_ids=(4,) * size, seed=size) for size in (3, 5, 2)]

    def run(watching: Watching | None) -> tuple[list[dict[int, Guess]], dict[int, Guess]]:
        guesses: list[dict[int, Guess]] = []
        canvas = canvases.start(rows, sampler.noise, model.device)
        nothing = torch.tensor([], dtype=torch.int64)
        executor = EagerExecutor(model, cache, canvas, sampler, suppressed_ids=nothing)
        ended = finished(
            denoise(
                Denoiser(executor, sampler, observer=watching),
                cancel=unhurried(),
                on_step=lambda denoising: guesses.append({index: denoising.guess(index) for index in denoising.live}),
                choose=lambda _denoising: [0, 1],
            )
        )
        return guesses, ended.guesses

    watching = Watching()
    watching.recorder.began([], [], 5)
    guesses, ended = run(watching)
    assert run(None)[1] == ended
    [canvas] = watching.recorder.trace(Infill(text="", finish=Finish.EMPTY)).canvases
    assert len(canvas.steps) == len(guesses) == 5
    for number, (step, said) in enumerate(zip(canvas.steps, guesses, strict=True)):
        assert [row.row for row in step.rows] == list(said)
        for row in step.rows:
            guess = said[row.row]
            assert (list(row.best_ids), list(row.entropy)) == (guess.ids, guess.entropy)
            assert list(row.confidence) == pytest.approx(guess.confidence, rel=1e-5)
        if number < len(watching.canvases):
            placed = watching.canvases[number][0].tolist()
            for row in step.rows:
                size = rows[row.row].num_free
                here, placed = placed[: len(rows[row.row].positions())], placed[len(rows[row.row].positions()) :]
                assert (here[:size], here[-2:]) == ([4] * size, [9, 9])
                assert list(row.next_ids) == here[size:-2]


async def test_trace_is_sent_to_the_requesting_client(tmp_path: Path) -> None:
    async with serving(tmp_path) as location, await EngineClient.attach(location) as client:
        trace = await client.trace(question("né", steps=3))
        assert trace.infill.text == "2|1"
        assert trace.infill == replace(await client.infill(question("né", steps=3)), timings_ms=trace.infill.timings_ms)
        with pytest.raises(EngineFault, match="max_middle_tokens"):
            await client._request("engine/trace", question().to_wire() | {"max_middle_tokens": 0}, dict)


async def test_engine_without_traces_is_detected(tmp_path: Path) -> None:
    """An engine of an older version may still run after an upgrade."""
    location = location_in(tmp_path)
    location.prepare()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        peer.notify(HELLO, Hello(protocol=PROTOCOL).to_wire())
        peer.notify("engine/progress", {"state": "ready", "percent": 100})
        await peer.run()

    async with await asyncio.start_unix_server(connected, location.socket):
        client = await EngineClient.attach(location)
        with pytest.raises(EngineFault, match=r"older version.*dgemma-engine stop"):
            await client.trace(question())
        await client.close()
