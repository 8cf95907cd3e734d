"""Input and output tensors of captured denoising steps, at fixed addresses, one set for canvases of every size.

A step of few positions uses the beginnings of the same tensors that a step of many uses, so the rest of
them is stale; a step must read nothing but its view. Knows tensors and sizes; knows no model.

Shape legend: R rows, L positions of all rows together, V vocabulary, D hidden, T tokens of the block before, F sets of
banned tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The row of a position that belongs to no canvas.
NO_ROW = 2**20


def step_length(num_tokens: int) -> int:
    """Returns the length that a step of this many tokens is padded to: 32, 64, 128, 192, 256, 384, 512, 768, ...

    A captured step belongs to its length, so there are few of them; each is at most half as long again as the one
    before, from 128 on.
    """
    whole = 1 << max(5, (num_tokens - 1).bit_length())
    half = whole // 4 * 3
    return half if whole > 128 and num_tokens <= half else whole


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShape:
    """Sizes of a step; a captured one serves every step of its sizes.

    Attributes:
        num_rows: R, a power of two, padded with empty rows.
        length: L, one of `step_length`, padded with positions that no token attends to.
        num_block: T, likewise; 0 where no block joins the prompt.
    """

    num_rows: int
    length: int
    num_block: int = 0

    @classmethod
    def holding(cls, num_rows: int, length: int, num_block: int = 0) -> StepShape:
        """Returns the smallest shape that holds these sizes."""
        num_block = step_length(num_block) if num_block else 0
        return cls(num_rows=1 << (num_rows - 1).bit_length(), length=step_length(length), num_block=num_block)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """The tensors of one shape.

    Attributes:
        ids_L: the canvas, int64.
        given_L: given tokens at fixed positions, int64.
        fixed_L: bool, True where text is given.
        row_L: int32; `NO_ROW` after the rows.
        offset_L: distance of a position from its row's first, int32.
        noise_L: tokens that replace what is not accepted, int64.
        levels_L: uniform random numbers, 0 to 1, that tokens are sampled by, float32.
        soft_LD: self-conditioning signal; 0 before the first step.
        logits_LV: logits, then probabilities.
        sampled_L: token drawn at each position, int32.
        scores_4L: what the host reads: answer, bits of entropy and of confidence, token before the step, int32.
        free_RL: positions of each row's free part, int64, padded with L, which is no position.
        valid_RL: bool, False where `free_RL` is padded.
        accepted_RL: positions of each row's free part that the last step accepted, bool.
        banned_FV: sets of tokens that cannot appear, bool.
        set_of_L: index of the set that holds at each position, int32.
        temperature_1: float32.
        num_stored_1: tokens in the prompt, int32.
        num_before_1: tokens in the prompt and the block, int32.
        block_T: tokens that join the prompt, then padding, int64.
    """

    ids_L: Tensor
    given_L: Tensor
    fixed_L: Tensor
    row_L: Tensor
    offset_L: Tensor
    noise_L: Tensor
    levels_L: Tensor
    soft_LD: Tensor
    logits_LV: Tensor
    sampled_L: Tensor
    scores_4L: Tensor
    free_RL: Tensor
    valid_RL: Tensor
    accepted_RL: Tensor
    banned_FV: Tensor
    set_of_L: Tensor
    temperature_1: Tensor
    num_stored_1: Tensor
    num_before_1: Tensor
    block_T: Tensor


class StepBuffers:
    """The memory of all views.

    Args:
        shape: largest sizes that they hold.
        num_sets: F.
        vocab_size: V.
        hidden_size: D.
        dtype: of hidden states and logits.
        device: of the memory.
    """

    def __init__(
        self,
        shape: StepShape,
        num_sets: int,
        *,
        vocab_size: int,
        hidden_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        length, num_places = shape.length, shape.num_rows * shape.length
        self.shape, self.num_sets = shape, num_sets
        self._vocab_size, self._hidden_size = vocab_size, hidden_size

        def zeros(size: int, kind: torch.dtype) -> Tensor:
            return torch.zeros(size, dtype=kind, device=device)

        self._int64 = [zeros(length, torch.int64) for _ in range(3)]
        self._int32 = [zeros(length, torch.int32) for _ in range(4)]
        self._fixed, self._levels = zeros(length, torch.bool), zeros(length, torch.float32)
        self._scores = zeros(4 * length, torch.int32)
        self._soft, self._logits = zeros(length * hidden_size, dtype), zeros(length * vocab_size, dtype)
        self._free = zeros(num_places, torch.int64)
        self._valid, self._accepted = zeros(num_places, torch.bool), zeros(num_places, torch.bool)
        self._banned = zeros(num_sets * vocab_size, torch.bool)
        self._temperature, self._block = zeros(1, torch.float32), zeros(shape.num_block, torch.int64)
        self._stored, self._before = zeros(1, torch.int32), zeros(1, torch.int32)

    def holds(self, shape: StepShape, num_sets: int) -> bool:
        """Whether there is room for a step of this shape with this many sets of banned tokens."""
        own = self.shape
        pairs = ((shape.num_rows, own.num_rows), (shape.length, own.length), (shape.num_block, own.num_block))
        return num_sets <= self.num_sets and all(wanted <= there for wanted, there in pairs)

    def view(self, shape: StepShape) -> StepView:
        """Returns the tensors of a shape; their values are left over from other steps."""
        length, num_places = shape.length, shape.num_rows * shape.length
        ids, given, noise = (tensor[:length] for tensor in self._int64)
        row, offset, sampled, set_of = (tensor[:length] for tensor in self._int32)
        return StepView(
            ids_L=ids,
            given_L=given,
            fixed_L=self._fixed[:length],
            row_L=row,
            offset_L=offset,
            noise_L=noise,
            levels_L=self._levels[:length],
            soft_LD=self._soft[: length * self._hidden_size].view(length, self._hidden_size),
            logits_LV=self._logits[: length * self._vocab_size].view(length, self._vocab_size),
            sampled_L=sampled,
            scores_4L=self._scores[: 4 * length].view(4, length),
            free_RL=self._free[:num_places].view(shape.num_rows, length),
            valid_RL=self._valid[:num_places].view(shape.num_rows, length),
            accepted_RL=self._accepted[:num_places].view(shape.num_rows, length),
            banned_FV=self._banned.view(self.num_sets, self._vocab_size),
            set_of_L=set_of,
            temperature_1=self._temperature,
            num_stored_1=self._stored,
            num_before_1=self._before,
            block_T=self._block[: shape.num_block],
        )
