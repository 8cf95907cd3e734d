"""Training and inference agree: the same canvas gives the same states and the same loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from dgemma_engine.errors import TaskError
from dgemma_engine.families.llama.adaptation import layer_terms
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.tools.adaptation.task.canvas_base import CanvasBase
from dgemma_engine.tools.adaptation.task.canvas_batch import CanvasBatch
from dgemma_engine.tools.tasks.task_rows import Part, TaskRow
from dgemma_engine.tools.tasks.task_tokens import TaskTokenizer, TaskTokens

from tests.llama_checkpoints import make_llama, write_llama_gguf
from tests.rounding import model_error

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")


@pytest.fixture
def base(marked_base: Path) -> CanvasBase:
    base = CanvasBase(marked_base, rank=4, device=CPU, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in base.factors.values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
    return base


@pytest.fixture
def rows(base: CanvasBase) -> list[TaskTokens]:
    assert base.tokens.mask is not None
    tokenizer = TaskTokenizer(base.tokenizer, start_id=base.tokens.end, blank_id=base.tokens.mask)
    texts = (("a\nb", "xyz", "c"), ("longer\n", "uv", "wx"))
    return [
        tokenizer.tokens(TaskRow((Part("given", before), Part("free", free), Part("given", after)), "row"))
        for before, free, after in texts
    ]


def batch_of(base: CanvasBase, rows: list[TaskTokens], seed: int = 0) -> CanvasBatch:
    assert base.tokens.mask is not None
    return CanvasBatch.of(
        rows,
        num_canvases=3,
        mask_id=base.tokens.mask,
        sliding_window=base.model.config.sliding_window,
        generator=torch.Generator().manual_seed(seed),
    )


def test_noise_is_on_free_positions_only_and_some_shown_tokens_are_wrong(
    base: CanvasBase, rows: list[TaskTokens]
) -> None:
    shown = wrong = masked = 0
    for seed in range(40):
        batch = batch_of(base, rows, seed)
        canvas_XL, is_free_XL = batch.input_XN[:, 1:], batch.weight_XL > 0
        assert (canvas_XL == batch.target_XL)[~is_free_XL].all()
        is_mask_XL = canvas_XL == base.tokens.mask
        masked += int(is_mask_XL.sum())
        shown += int((is_free_XL & ~is_mask_XL).sum())
        wrong += int((is_free_XL & ~is_mask_XL & (canvas_XL != batch.target_XL)).sum())
    assert masked > shown > wrong > 0


def test_loss_is_that_of_the_engines_pass_of_each_canvas(base: CanvasBase, rows: list[TaskTokens]) -> None:
    batch = batch_of(base, rows)
    loss = base.backward(batch)
    model = base.model
    model.canvas_terms = [layer_terms(base.factors, i, model) for i in range(model.config.num_layers)]
    losses = list[torch.Tensor]()
    with torch.inference_mode():
        for index, canvas_N in enumerate(batch.input_XN):
            row = rows[index // 3]
            cache = PromptCache(model.config, capacity=64, dtype=torch.float32, device=CPU)
            model.encode(torch.from_numpy(row.prompt)[None].long(), cache)
            hidden_1LD = model.decode(canvas_N[None, 1 : 1 + len(row.canvas)], cache)
            logits_NV = model.logits(hidden_1LD)[0, torch.from_numpy(row.is_free)]
            wanted_N = torch.from_numpy(row.canvas[row.is_free]).long()
            losses.append(F.cross_entropy(logits_NV, wanted_N, reduction="none"))
    assert loss == pytest.approx(float(torch.cat(losses).mean()), abs=10 * model_error(64))


def test_every_factor_and_the_mask_get_a_gradient(base: CanvasBase, rows: list[TaskTokens]) -> None:
    base.backward(batch_of(base, rows))
    for name, tensor in base.factors.items():
        assert tensor.grad is not None and tensor.grad.isfinite().all() and tensor.grad.abs().sum() > 0, name
    assert all(parameter.grad is None for parameter in base.model.parameters())


def test_given_positions_have_no_weight(base: CanvasBase, rows: list[TaskTokens]) -> None:
    batch = batch_of(base, rows)
    loss = base.backward(batch)
    other = torch.where(batch.weight_XL > 0, batch.target_XL, 7)
    assert base.backward(replace(batch, target_XL=other)) == pytest.approx(loss, rel=1e-6)


def test_other_families_and_missing_special_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="is no GGUF file of a Llama, and adapters are for those; choose --model small"):
        CanvasBase(tmp_path, rank=4, device=CPU, seed=0)
    checkpoint = make_llama(tmp_path)
    path = write_llama_gguf(checkpoint.gguf, checkpoint.reference)
    with pytest.raises(TaskError, match=r"its vocabulary has no special token <\|endoftext\|>; choose another model"):
        CanvasBase(path, rank=4, device=CPU, seed=0)
