"""Self-conditioning of clamped positions: the last distribution, the given token, or nothing.

    python engine/bench/quality/clamped.py HOLES

Fills every hole with each rule in turn, same seed, canvases alone, and reports exact match, edit similarity and steps;
differences to the first rule are paired. Every hole is filled twice: with the length that the engine finds, and with
the true one.
"""

from __future__ import annotations

import argparse
import difflib
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.diffusion.sampler import ClampedConditioning
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.options import Decode, InfillOptions
from dgemma_engine.model_store.catalogue import TINY
from dgemma_engine.protocol.messages import Context
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tools.evaluation.holes.hole_files import read_tasks
from dgemma_engine.tools.evaluation.holes.task import Task
from dgemma_engine.tools.evaluation.intervals import compare_means


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("holes", type=Path)
    record.add_destination(parser)
    parser.add_argument("--model", type=Path, default=model_folder(TINY))
    args = parser.parse_args()
    engine = Engine.load(args.model, device="cpu", report=lambda _percent, _message: None)
    tasks = [task for task in read_tasks(args.holes) if "\n" not in task.middle]
    result: dict[str, Any] = {"model": engine.model_name, "holes": args.holes.name, "n": len(tasks)}
    for length in ("auto", "oracle"):
        recipes = [options_of(engine, task, length) for task in tasks]
        similarity: dict[ClampedConditioning, list[float]] = {}
        for rule in ClampedConditioning:
            figures, similarity[rule] = filled(engine, tasks, recipes, rule)
            if rule is not ClampedConditioning.OWN:
                difference = compare_means(similarity[ClampedConditioning.OWN], similarity[rule], seed=0)
                figures["similarity_over_own"] = round(difference.difference, 4)
                figures["similarity_over_own_ci"] = [round(value, 4) for value in difference.difference_ci]
            result[f"{length}_{rule.name.lower()}"] = figures
            print(length, rule.name, figures, flush=True)
    record.write("clamped", result, args.out)


def options_of(engine: Engine, task: Task, length: str) -> InfillOptions:
    """Returns canvases alone, with the true length or without."""
    tokens = max(1, engine.count_tokens(task.middle)) if length == "oracle" else None
    return InfillOptions(decode=Decode.DIFFUSION, seeds=False, silence=False, slot_tokens=tokens)


def filled(
    engine: Engine, tasks: Sequence[Task], recipes: Sequence[InfillOptions], rule: ClampedConditioning
) -> tuple[dict[str, Any], list[float]]:
    """Returns figures under one rule, and the edit similarity of every hole."""
    canvases = engine._pipeline.canvases  # pyright: ignore[reportPrivateUsage]
    canvases._sampler = replace(canvases._sampler, clamped_conditioning=rule)  # pyright: ignore[reportPrivateUsage]
    exact, similarity, steps = list[bool](), list[float](), list[int]()
    for task, recipe in zip(tasks, recipes, strict=True):
        context = Context(document="bench", prefix=task.prefix, suffix=task.suffix, language=task.language)
        cancel = Cancel(deadline_s=time.monotonic() + 600, clock=time.monotonic)
        infill = engine.infill(context, cancel, options=recipe)
        exact.append(infill.text.strip() == task.middle.strip())
        similarity.append(difflib.SequenceMatcher(None, infill.text.strip(), task.middle.strip()).ratio())
        steps.append(infill.steps)
    return {
        "exact_match": round(statistics.mean(exact), 4),
        "edit_similarity": round(statistics.mean(similarity), 4),
        "steps_mean": round(statistics.mean(steps), 2),
    }, similarity


if __name__ == "__main__":
    main()
