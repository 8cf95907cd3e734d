"""Rows of a task as padded tensors: prompts, and noisy canvases of each after its prompt's last token.

Shape legend: B rows, P prompt tokens without the last (padded on the left), R canvases of a row, X = B * R, L canvas
positions (padded on the right).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dgemma_engine.tools.tasks.task_tokens import TaskTokens
from dgemma_engine.tools.training.data.corruption import noise_levels
from dgemma_engine.tools.training.data.training_masks import Layout, canvas_layout, encoder_layout

# Share of the free tokens shown that are wrong, so that the model learns to correct them.
_WRONG_SHARE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class CanvasBatch:
    """Some rows on a device; ids are int64.

    Attributes:
        prompt_BP: all but the last token of each prompt.
        prompt_layout: masks and positions of that pass.
        input_XN: the last prompt token, then the noisy canvas: N = 1 + L.
        canvas_layout: masks and positions of that pass.
        target_XL: the right tokens of the canvas.
        weight_XL: of each target, float32; 0 where it is given or padding.
    """

    prompt_BP: Tensor
    prompt_layout: Layout
    input_XN: Tensor
    canvas_layout: Layout
    target_XL: Tensor
    weight_XL: Tensor

    @classmethod
    def of(
        cls,
        rows: Sequence[TaskTokens],
        *,
        num_canvases: int,
        mask_id: int,
        sliding_window: int,
        generator: torch.Generator,
    ) -> Self:
        """Draws noise on some rows.

        Args:
            rows: at least one, all known.
            num_canvases: R.
            mask_id: the noise.
            sliding_window: of the model.
            generator: of the noise; gives the device.
        """
        device, num_rows = generator.device, len(rows)
        prompt_B = torch.tensor([len(row.prompt) - 1 for row in rows], device=device)
        canvas_B = torch.tensor([len(row.canvas) for row in rows], device=device)
        num_prompt, num_canvas = int(prompt_B.max()), int(canvas_B.max())
        prompt_BP = torch.zeros(num_rows, num_prompt, dtype=torch.int64)
        target_BL = torch.zeros(num_rows, num_canvas, dtype=torch.int64)
        free_BL = torch.zeros(num_rows, num_canvas, dtype=torch.bool)
        for index, row in enumerate(rows):
            prompt_BP[index, num_prompt - len(row.prompt) + 1 :] = torch.from_numpy(row.prompt[:-1])
            target_BL[index, : len(row.canvas)] = torch.from_numpy(row.canvas)
            free_BL[index, : len(row.canvas)] = torch.from_numpy(row.is_free)
        last_X1 = torch.tensor([[int(row.prompt[-1])] for row in rows], device=device).repeat_interleave(
            num_canvases, 0
        )
        target_XL = target_BL.to(device).repeat_interleave(num_canvases, 0)
        free_XL = free_BL.to(device).repeat_interleave(num_canvases, 0)
        noisy_XL = _noisy(target_XL, free_XL, num_rows, num_canvases, mask_id, generator)
        return cls(
            prompt_BP=prompt_BP.to(device),
            prompt_layout=encoder_layout(prompt_B, num_prompt, 0, sliding_window),
            input_XN=torch.cat((last_X1, noisy_XL), dim=1),
            canvas_layout=canvas_layout(
                prompt_B,
                canvas_B,
                prompt_tokens=num_prompt,
                slot_size=1,
                head_tokens=num_canvas,
                num_canvases=num_canvases,
                sliding_window=sliding_window,
            ),
            target_XL=target_XL,
            weight_XL=free_XL.float(),
        )


def _noisy(
    target_XL: Tensor, free_XL: Tensor, num_rows: int, num_canvases: int, mask_id: int, generator: torch.Generator
) -> Tensor:
    """Returns canvases: of the free tokens some are masks, some of the others another free token of the batch."""

    def draw() -> Tensor:
        return torch.rand(target_XL.shape, generator=generator, device=generator.device)

    levels_X1 = noise_levels(num_rows, num_canvases, generator).flatten()[:, None]
    free_ids = target_XL[free_XL]
    others = torch.randint(0, len(free_ids), target_XL.shape, generator=generator, device=generator.device)
    shown_XL = torch.where(free_XL & (draw() < _WRONG_SHARE), free_ids[others], target_XL)
    return torch.where(free_XL & (draw() < levels_X1), mask_id, shown_XL)
