"""What a checkpoint was trained on, for how long and how well it does, as the `README.md` of its folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dgemma_engine.tools.corpus.corpus import MANIFEST
from dgemma_engine.tools.training.curves import Curves


def model_card(curves: Curves, corpus: Path, *, num_parameters: int, seed: int) -> str:
    """Returns Markdown.

    Args:
        curves: of the run so far.
        corpus: its folder; the manifest says where the text comes from.
        num_parameters: of the model.
        seed: of the run.

    Raises:
        OSError: the manifest cannot be read.
    """
    manifest: dict[str, Any] = json.loads((corpus / MANIFEST).read_text(encoding="utf-8"))
    return "\n".join(_lines(curves, manifest["packages"], num_parameters, seed)) + "\n"


def task_card(curves: Curves, task: str, num_rows: int, *, num_parameters: int, seed: int) -> str:
    """Returns Markdown.

    Args:
        curves: of the run so far.
        task: name of the file of rows.
        num_rows: those trained on.
        num_parameters: of the model.
        seed: of the run.
    """
    lines = ["# A small DiffusionGemma that solves a task\n", *_training_lines(curves, num_parameters, seed)]
    lines += ["\n## Data\n", f"{num_rows:,} rows of `{task}`; one row in ten was held out."]
    return "\n".join(lines) + "\n"


def _lines(curves: Curves, packages: list[dict[str, Any]], num_parameters: int, seed: int) -> Iterator[str]:
    trained = [package for package in packages if package["split"] == "train"]
    held_out = [package for package in packages if package["split"] == "held_out"]
    yield "# A small DiffusionGemma that fills holes in Python\n"
    yield from _training_lines(curves, num_parameters, seed)
    yield "\n## Data\n"
    yield "Python files of the standard library and of installed packages under permissive licences, read from their"
    yield "metadata; duplicates, generated files and anything that resembles HumanEval left out.\n"
    yield "| licence | packages | files | bytes | tokens |\n| --- | ---: | ---: | ---: | ---: |"
    for licence in sorted({package["licence"] for package in trained}):
        yield _row(licence, (package for package in trained if package["licence"] == licence))
    yield _row("all", trained)
    yield f"\nTrained on: {_names(trained)}.\n"
    yield f"Held out whole: {_names(held_out)}."


def _training_lines(curves: Curves, num_parameters: int, seed: int) -> Iterator[str]:
    yield f"{num_parameters / 1e6:.1f} M parameters in all, trained from random weights with `dgemma-engine train`."
    yield "Same architecture and file layout as the released checkpoint; `infill.json` says how it wants holes.\n"
    yield "## Training\n"
    if curves.points:
        point = curves.points[-1]
        yield f"- {point.minutes:.0f} minutes, {point.step:,} steps, seed {seed}"
        yield f"- {point.holes:,} holes, {point.tokens:,} tokens of prompt, slot and canvas"
    if curves.evaluations:
        evaluation = curves.evaluations[-1]
        yield f"- held-out holes at step {evaluation.step:,}, nats per token: slot {evaluation.slot:.3f},"
        yield f"  slot from noise alone {evaluation.slot_full_noise:.3f}, next token {evaluation.causal:.3f}"


def _row(name: str, packages: Iterable[dict[str, Any]]) -> str:
    members = list(packages)
    sums = (sum(package[key] for package in members) for key in ("files", "bytes", "tokens"))
    return f"| {name} | {len(members)} | " + " | ".join(f"{total:,}" for total in sums) + " |"


def _names(packages: list[dict[str, Any]]) -> str:
    return ", ".join(f"{package['package']} {package['version']}" for package in packages)
