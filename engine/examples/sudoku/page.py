"""Writes a page that plays a puzzle being solved: one HTML file that fetches nothing.

    python engine/examples/sudoku/page.py puzzles.jsonl --model run/best --row 3 --out sudoku.html

Its style sheet is that of `dgemma-lsp trace`, with `page.css` after it.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgemma_lsp.commands.trace_report import embedded_json

if TYPE_CHECKING:
    from dgemma_engine.diffusion.denoiser import ScoredStep
    from dgemma_engine.diffusion.step_executor import StepExecutor
    from torch import Tensor

_SLOT = re.compile(r"\{\{(style|script|data)\}\}")
_HERE = Path(__file__).parent


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Writes a page that plays a puzzle being solved.")
    parser.add_argument("task", type=Path, metavar="FILE", help="puzzles, written by generate.py")
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a model that solves them")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="what `tune --task` wrote for that model")
    parser.add_argument("--row", type=int, default=1, metavar="N", help="which puzzle of the file (default: 1)")
    parser.add_argument("--steps", type=int, default=48, metavar="N", help="most denoising steps (default: 48)")
    parser.add_argument("--out", type=Path, default=Path("sudoku.html"), metavar="FILE", help="default: sudoku.html")
    arguments = parser.parse_args()
    arguments.out.write_text(to_html(recorded(arguments)), encoding="utf-8")
    print(arguments.out)


@dataclass(slots=True)
class Recording:
    """A `StepObserver`: the token in each free cell and the model's likeliest digit for it, step by step.

    Attributes:
        steps: JSON-ready; token ids.
    """

    steps: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def scored(self, step: ScoredStep, executor: StepExecutor) -> None:
        """Records a step, of the only row."""
        free_M = executor.layout.free_RM[0]
        self.steps.append(
            {
                "seen": executor.tokens()[0, free_M].tolist(),
                "best": step.scores.best_RM[0].tolist(),
                "entropy": [round(nats, 3) for nats in step.scores.entropy_RM[0].tolist()],
                "accepted": [],
            }
        )

    def renoised(self, accepted_RM: Tensor, executor: StepExecutor) -> None:
        """Records what stays for the next step."""
        self.steps[-1]["accepted"] = accepted_RM[0].tolist()


def recorded(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what the page shows: cells, and the steps of one solution."""
    import torch
    from dgemma_engine.tools.tasks.solver import Solver
    from dgemma_engine.tools.tasks.task_model import TaskModel
    from dgemma_engine.tools.tasks.task_rows import read_rows

    row = next(islice(read_rows(arguments.task), arguments.row - 1, None))
    model = TaskModel.load(arguments.model, torch.device("cpu"), arguments.adapter)
    tokens = model.tokenizer.tokens(row)
    recording = Recording()
    solver = Solver(model, num_steps=arguments.steps, mode="adaptive")
    solution = solver.solve(tokens, place=row.place, observer=recording)

    def digits(ids: list[int]) -> list[str]:
        # Noise is any token of the vocabulary; what is no digit is shown as a dot.
        return [text if text.isdigit() else "·" for text in map(model.tokenizer.text_of, ids)]

    return {
        "cells": [
            {"digit": digits([token_id])[0], "free": free}
            for token_id, free in zip(tokens.canvas.tolist(), tokens.is_free.tolist(), strict=True)
        ],
        "steps": [step | {"seen": digits(step["seen"]), "best": digits(step["best"])} for step in recording.steps],
        "most_steps": arguments.steps,
        "right": solution.num_right(tokens),
        "model": arguments.model.name,
    }


def to_html(data: dict[str, Any]) -> str:
    """Returns the page.

    Args:
        data: JSON-ready.
    """
    style = (files("dgemma_lsp.commands") / "trace_page" / "trace.css").read_text(encoding="utf-8")
    parts = {
        "style": f"{style.rstrip()}\n{(_HERE / 'page.css').read_text(encoding='utf-8').rstrip()}",
        "script": (_HERE / "page.js").read_text(encoding="utf-8").rstrip(),
        "data": embedded_json(data),
    }
    # In one pass: what is put in is not searched again.
    return _SLOT.sub(lambda slot: parts[slot.group(1)], (_HERE / "page.html").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
