"""A warm completion by the engine against `transformers`' generate: same checkpoint, prompt, canvas and step count.

Every round types one more character into a real file and completes after it in turn: by the engine, which has the
prompt of the round before (`ours`); by the engine for a document it has never seen (`ours_fresh`); by `transformers`,
whose generate returns keys and values only on request and encodes the prompt again (`transformers_*`); and by
`transformers` given the keys and values of all of the prompt but its last token, made and copied outside the measured
time (`transformers_*_kept`). All run in this process on one thread, and medians of processor time are compared, which
is independent of other processes.

Ratios, each to the faster number format of its kind: `ratio_unranked_to_transformers` is what one typed character
costs here and there; `ratio_fresh_unranked_to_transformers` is a cold prompt on both sides; `..._kept` is a kept prompt
on both sides.

`unranked` leaves out the causal pass that ranks an answer, which `transformers` does not make.

The engine uses the number format it picks for this processor; `transformers` runs in float32 and in bfloat16, and the
faster of the two is what the ratios compare with. The stop rule is set to never fire, so that all make every step;
`transformers` gets a canvas as long as ours.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
import torch
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.diffusion.sampler import StableAndConfident
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.options import Decode, InfillOptions
from dgemma_engine.infill.task import build_prompt
from dgemma_engine.model_store.catalogue import TINY
from dgemma_engine.protocol.messages import Context, Extent
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tokenization.tokenizer import Tokenizer
from dgemma_engine.tools.conversion.converter import export_folder

NUM_STEPS = 4
# Steps without a change before the stop rule fires: more than are made.
NEVER = 100
MIDDLE_TOKENS = 15
# One row and nothing beside it, as `transformers` has it; ours is ranked and checked in addition.
ONE_CANVAS = InfillOptions(decode=Decode.DIFFUSION, slot_tokens=MIDDLE_TOKENS, seeds=False, silence=False)
OURS = ("ours", "ours_unranked", "ours_fresh", "ours_fresh_unranked")
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Enough for all kernels of a long prompt.
_TRIAL_TOKENS = 256
_Peer = TypeVar("_Peer")


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--model", type=Path, default=model_folder(TINY))
    args = parser.parse_args()
    record.write("warm", measured(args.model, args.rounds), args.out)


def measured(model: Path, rounds: int) -> dict[str, Any]:
    """Returns the medians and ratios of a model folder."""
    engine = Engine.load(model, device="cpu", report=lambda _percent, _message: None)
    torch.set_num_threads(1)
    tokenizer = Tokenizer.load(model)
    with_fixed_steps(engine)
    engine._clock = time.process_time  # pyright: ignore[reportPrivateUsage]
    computed = computable(
        lambda name: LlamaPeer(model, FORMATS[name]), lambda peer: peer.generate([1] * _TRIAL_TOKENS, _TRIAL_TOKENS)
    )
    peers = {f"transformers_{name}": peer for name, peer in computed.items()}
    keeping = {f"{name}_kept": peer for name, peer in peers.items()}
    times: dict[str, list[float]] = {name: [] for name in (*OURS, *peers, *keeping)}
    shapes: list[tuple[int, int]] = []
    for number, context in enumerate(typed(rounds)):
        prompt_ids, canvas = layout(engine, tokenizer, context)
        shapes.append((len(prompt_ids), canvas))
        runs: dict[str, Callable[[], object]] = {
            "ours": lambda context=context: complete(engine, context),
            "ours_fresh": lambda context=context, number=number: fresh(engine, tokenizer, context, f"unseen {number}"),
        }
        for name, peer in peers.items():
            runs[name] = lambda peer=peer, ids=prompt_ids, canvas=canvas: peer.generate(ids, canvas)
        for name, peer in keeping.items():
            kept = peer.encoded(prompt_ids[:-1])
            runs[name] = lambda peer=peer, ids=prompt_ids, canvas=canvas, kept=kept: peer.generate(
                ids[-1:], canvas, kept
            )
        for name, run in runs.items():
            started = time.process_time()
            rank_ms = run()
            times[name].append((time.process_time() - started) * 1e3)
            if isinstance(rank_ms, float):
                times[f"{name}_unranked"].append(times[name][-1] - rank_ms)
    # The first rounds make one-time allocations on all sides.
    medians = {name: round(statistics.median(values[3:]), 2) for name, values in times.items()}
    fastest_peer = min(peers, key=lambda name: medians[name])
    return {
        "model": engine.model_name,
        "prompt_tokens": statistics.median(tokens for tokens, _canvas in shapes),
        "canvas": shapes[-1][1],
        "steps": NUM_STEPS,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "clock": "processor time",
        "ours_format": str(engine._model.dtype).removeprefix("torch."),  # pyright: ignore[reportPrivateUsage]
        "fastest_peer": fastest_peer,
        **{f"{name}_ms": value for name, value in medians.items()},
        **ratios(medians, [*peers], [*keeping]),
        "target_ratio": 4,
    }


def computable(made: Callable[[str], _Peer], trial: Callable[[_Peer], object]) -> dict[str, _Peer]:
    """Returns a peer for each of `FORMATS` that it can compute: torch 2.13 lacks a bfloat16 kernel below AVX-512.

    Args:
        made: makes the peer of a format's name.
        trial: what a peer has to be able to do.

    Raises:
        RuntimeError: it can compute none.
    """
    found: dict[str, _Peer] = {}
    failed: dict[str, RuntimeError] = {}
    for name in FORMATS:
        try:
            peer = made(name)
            trial(peer)
        except RuntimeError as error:
            print(f"transformers cannot compute {name} here: {error}", file=sys.stderr)
            failed[name] = error
        else:
            found[name] = peer
    if not found:
        raise next(iter(failed.values()))
    return found


def ratios(ms: dict[str, float], peers: list[str], keeping: list[str]) -> dict[str, float]:
    """Returns how many times as long `transformers` takes, in the faster of its number formats."""
    theirs = {"": min(ms[name] for name in peers), "_kept": min(ms[name] for name in keeping)}
    pairs = [(kind, kept) for kept in theirs for kind in OURS if not (kept and "fresh" in kind)]
    return {
        f"ratio{kind.removeprefix('ours')}_to_transformers{kept}": round(theirs[kept] / ms[kind], 2)
        for kind, kept in pairs
    }


def typed(rounds: int) -> list[Context]:
    """Returns one question per character typed into this file."""
    text = Path(__file__).read_text(encoding="utf-8")
    start = text.index("statistics.median(") + len("statistics.median(")
    return [
        Context(
            document="bench",
            prefix=text[: start + typed_characters],
            suffix=text[start + rounds :],
            deadline_ms=600_000,
        )
        for typed_characters in range(rounds)
    ]


def with_fixed_steps(engine: Engine) -> None:
    """Makes every answer of the engine take `NUM_STEPS` steps."""
    canvases = engine._pipeline.canvases  # pyright: ignore[reportPrivateUsage]
    never = StableAndConfident(num_earlier=NEVER, confidence=0.1)
    canvases._sampler = replace(canvases._sampler, stop=never)  # pyright: ignore[reportPrivateUsage]
    assert canvases.num_steps[Extent.LINE] == NUM_STEPS


def layout(engine: Engine, tokenizer: Tokenizer, context: Context) -> tuple[list[int], int]:
    """Returns the prompt's ids and the canvas length the engine uses for a question.

    With a tokenizer of its own: the engine's caches texts.
    """
    form = engine._pipeline._format  # pyright: ignore[reportPrivateUsage]
    hole = build_prompt(context, tokenizer, form, engine._model.config)  # pyright: ignore[reportPrivateUsage]
    return hole.prompt_ids, form.slot_size(MIDDLE_TOKENS + 1) + len(hole.head_ids)


def complete(engine: Engine, context: Context) -> float:
    """Answers one question; returns the milliseconds its ranking took, which `transformers` has no part of."""
    cancel = Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)
    infill = engine.infill(context, cancel, options=ONE_CANVAS)
    assert infill.steps == NUM_STEPS, infill.steps
    return infill.timings_ms["rank"]


def fresh(engine: Engine, tokenizer: Tokenizer, context: Context, document: str) -> float:
    """Answers one question of a document that the engine has never seen, text included; returns as `complete`."""
    tokenizer._known_ids.cache_clear()  # pyright: ignore[reportPrivateUsage]
    pipeline = engine._pipeline  # pyright: ignore[reportPrivateUsage]
    own, pipeline._tokenizer = pipeline._tokenizer, tokenizer  # pyright: ignore[reportPrivateUsage]
    try:
        return complete(engine, replace(context, document=document))
    finally:
        pipeline._tokenizer = own  # pyright: ignore[reportPrivateUsage]


class LlamaPeer:
    """`transformers`' generate.

    Args:
        folder: the same checkpoint.
        dtype: number format it runs in.
    """

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        from transformers.models.diffusion_gemma import DiffusionGemmaForBlockDiffusion
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        with tempfile.TemporaryDirectory(prefix="dgemma-") as place:
            # It cannot read quantised weights without another library; these have the same values.
            export_folder(folder, Path(place) / "plain", torch.float32, report=lambda _percent: None)
            loaded = DiffusionGemmaForBlockDiffusion.from_pretrained(Path(place) / "plain", dtype=dtype)
        self._model: Any = loaded.eval()
        self._outside = self._model.config.text_config.vocab_size

    @torch.inference_mode()
    def encoded(self, prompt_ids: list[int]) -> Any:
        """Returns keys and values of a prompt, as generate takes them."""
        return self._model.model.encoder(input_ids=torch.tensor([prompt_ids])).past_key_values

    def generate(self, prompt_ids: list[int], canvas: int, kept: Any = None) -> None:
        """Fills one canvas after a prompt, or after what is `kept` of one and its last tokens."""
        from transformers.models.diffusion_gemma.generation_diffusion_gemma import EntropyBoundSamplerConfig

        self._model.config.canvas_length = canvas
        self._model.generate(
            input_ids=torch.tensor([prompt_ids]),
            past_key_values=kept,
            max_new_tokens=canvas,
            max_denoising_steps=NUM_STEPS,
            t_min=0.4,
            t_max=0.8,
            stability_threshold=NEVER,
            confidence_threshold=0.1,
            sampler_config=EntropyBoundSamplerConfig(entropy_bound=0.1),
            eos_token_id=self._outside,
            pad_token_id=self._outside + 1,
        )


if __name__ == "__main__":
    main()
