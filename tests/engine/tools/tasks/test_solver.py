from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from dgemma_engine.diffusion.denoiser import ScoredStep
from dgemma_engine.diffusion.step_executor import StepExecutor
from dgemma_engine.errors import TaskError
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.tools.tasks.measured import TaskFigures, solve_rows
from dgemma_engine.tools.tasks.solver import Mode, Solver
from dgemma_engine.tools.tasks.task_model import TaskModel
from dgemma_engine.tools.tasks.task_rows import Part, TaskRow
from dgemma_engine.tools.tasks.task_tokens import TaskTokens
from torch import Tensor

ROW = TaskRow(
    (Part("given", "ab\nc"), Part("free", "xyz"), Part("given", "dd"), Part("free", "uvw"), Part("given", "f")), "row 1"
)


@dataclass
class Watcher:
    """Records the canvas, the best tokens and the accepted positions of every step."""

    canvases: list[list[int]] = field(default_factory=list[list[int]])
    best: list[list[int]] = field(default_factory=list[list[int]])
    accepted: list[list[bool]] = field(default_factory=list[list[bool]])
    after: list[list[int]] = field(default_factory=list[list[int]])

    def scored(self, step: ScoredStep, executor: StepExecutor) -> None:
        self.canvases.append(executor.tokens()[0].tolist())
        self.best.append(step.scores.best_RM[0].tolist())

    def renoised(self, accepted_RM: Tensor, executor: StepExecutor) -> None:
        self.accepted.append(accepted_RM[0].tolist())
        self.after.append(executor.tokens()[0, executor.layout.free_RM[0]].tolist())


@pytest.fixture
def tokens(task_model: TaskModel) -> TaskTokens:
    return task_model.tokenizer.tokens(ROW)


def solve(model: TaskModel, tokens: TaskTokens, mode: Mode, watcher: Watcher | None = None) -> tuple[list[int], int]:
    solution = Solver(model, num_steps=12, mode=mode, seed=4).solve(tokens, place="row 1", observer=watcher)
    return solution.ids, solution.steps


@pytest.mark.parametrize("mode", ["adaptive", "fixed", "frozen"])
def test_given_tokens_are_kept_at_every_step_and_free_ones_are_found(
    task_model: TaskModel, tokens: TaskTokens, mode: Mode
) -> None:
    watcher = Watcher()
    ids, steps = solve(task_model, tokens, mode, watcher)
    assert len(ids) == 6 and steps == len(watcher.canvases)
    assert not set(ids) & set(task_model.suppressed_ids)
    for canvas in watcher.canvases:
        given = [token for token, free in zip(canvas, tokens.is_free, strict=True) if not free]
        assert given == tokens.canvas[~tokens.is_free].tolist()
    assert ids == watcher.best[-1]


def test_fixed_makes_every_step_and_adaptive_stops_when_settled(task_model: TaskModel, tokens: TaskTokens) -> None:
    assert solve(task_model, tokens, "fixed")[1] == 12
    assert solve(task_model, tokens, "adaptive")[1] < 12


def test_frozen_tokens_stay_and_form_the_answer(task_model: TaskModel, tokens: TaskTokens) -> None:
    loose, frozen = Watcher(), Watcher()
    solve(task_model, tokens, "fixed", loose)
    solve(task_model, tokens, "frozen", frozen)

    def changed(watcher: Watcher) -> int:
        kept, changes = dict[int, int](), 0
        for accepted, after in zip(watcher.accepted, watcher.after, strict=True):
            changes += sum(after[at] != token for at, token in kept.items())
            kept |= {at: after[at] for at, is_kept in enumerate(accepted) if is_kept and at not in kept}
        return changes

    assert changed(loose) > 0 and changed(frozen) == 0
    last = [token for token, is_kept in zip(frozen.after[-1], frozen.accepted[-1], strict=True) if is_kept]
    read = [token for token, is_kept in zip(frozen.best[-1], frozen.accepted[-1], strict=True) if is_kept]
    assert last and last == read


@torch.inference_mode()
def test_left_to_right_takes_the_likeliest_next_token(task_model: TaskModel, tokens: TaskTokens) -> None:
    ids, steps = solve(task_model, tokens, "left_to_right")
    assert steps == len(ids) == 6
    model, canvas = task_model.model, tokens.canvas.copy()
    canvas[tokens.is_free] = ids
    cache = PromptCache(model.config, capacity=64, dtype=model.dtype, device=model.device)
    whole = torch.tensor([[*tokens.prompt.tolist(), *canvas.tolist()]])
    logits_LV = model.logits(model.encode(whole, cache))[0, len(tokens.prompt) - 1 : -1]
    logits_LV[:, list(task_model.suppressed_ids)] = -torch.inf
    assert logits_LV[torch.from_numpy(tokens.is_free)].argmax(-1).tolist() == ids


def test_rows_are_counted_and_those_of_unknown_text_not_judged(task_model: TaskModel) -> None:
    open_row = TaskRow((Part("free", None, 2), Part("given", "a")), "row 2")
    solver, figures = Solver(task_model, num_steps=3, mode="adaptive"), TaskFigures()
    for solved in solve_rows([ROW, open_row], task_model.tokenizer, solver):
        figures = figures.plus(solved)
        assert (solved.is_right is None) == (solved.row is open_row)
    counted = figures.to_json()
    assert (counted["rows"], counted["judged"], counted["solved"]) == (2, 1, 0)
    assert figures.free_tokens == 6 and counted["share"] == 0.0
    assert TaskFigures().to_json()["share"] is None


def test_a_row_too_long_for_the_model_is_refused(task_model: TaskModel) -> None:
    row = TaskRow((Part("free", None, 25),), "t: line 9")
    with pytest.raises(TaskError, match="t: line 9 needs a canvas of 25 tokens, and the model has 24"):
        Solver(task_model, num_steps=3, mode="adaptive").solve(task_model.tokenizer.tokens(row), place=row.place)
