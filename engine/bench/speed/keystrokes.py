"""What a keystroke costs after a prompt of 2,000 tokens: tokens encoded again, and its time against a cold request's.

`tiny` is given room for that many prompt tokens; its answers there mean little, the work is the same. Every round types
one more character into a real file and asks twice: for the document of the round before (warm) and for a new one
(cold), interleaved in one process. The request is the product's own: all candidates, ranked.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
import torch
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.infill.engine import Engine
from dgemma_engine.model_store.catalogue import TINY
from dgemma_engine.protocol.messages import Context, Infill
from dgemma_engine.scheduling.timing import Cancel

PREFIX_TOKENS, SUFFIX_TOKENS = 1_800, 200
SOURCE = Path(argparse.__file__)


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--model", type=Path, default=model_folder(TINY))
    args = parser.parse_args()
    engine = Engine.load(args.model, device="cpu", report=lambda _percent, _message: None)
    pipeline = engine._pipeline  # pyright: ignore[reportPrivateUsage]
    pipeline._format = replace(  # pyright: ignore[reportPrivateUsage]
        pipeline._format, prefix_tokens=PREFIX_TOKENS, suffix_tokens=SUFFIX_TOKENS
    )
    warm_ms, cold_ms, encoded, prompt_tokens, forwards = (
        list[float](),
        list[float](),
        list[int](),
        list[int](),
        list[int](),
    )
    for number, context in enumerate(typed(args.rounds)):
        cold = ask(engine, replace(context, document=f"unseen {number}"))
        prompt_tokens.append(cold.encoded_tokens)
        warm = ask(engine, context)
        if number:  # the first one has no round before it
            cold_ms.append(cold.timings_ms["total"])
            warm_ms.append(warm.timings_ms["total"])
            encoded.append(warm.encoded_tokens)
            forwards.append(warm.forwards)
    record.write(
        "keystrokes",
        {
            "model": engine.model_name,
            "rounds": len(warm_ms),
            "threads": torch.get_num_threads(),
            "prompt_tokens": statistics.median(prompt_tokens),
            "encoded_again_median": statistics.median(encoded),
            "encoded_again_most": max(encoded),
            "target_encoded_again": 16,
            "warm_ms": round(statistics.median(warm_ms), 1),
            "cold_ms": round(statistics.median(cold_ms), 1),
            "forwards_mean": round(statistics.mean(forwards), 2),
            "ratio_warm_to_cold": round(statistics.median(warm_ms) / statistics.median(cold_ms), 3),
            "target_ratio": 0.35,
        },
        args.out,
    )


def typed(rounds: int) -> list[Context]:
    """Returns one question per character typed into a file of the standard library."""
    text = SOURCE.read_text(encoding="utf-8")
    start = text.index("def _get_optional_actions")
    return [
        Context(document="bench", prefix=text[: start + done], suffix=text[start + rounds :], deadline_ms=600_000)
        for done in range(rounds)
    ]


def ask(engine: Engine, context: Context) -> Infill:
    """Answers one question."""
    return engine.infill(context, Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic))


if __name__ == "__main__":
    main()
