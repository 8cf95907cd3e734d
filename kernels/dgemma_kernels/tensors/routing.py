"""Which tokens go to which experts, sorted, in buffers whose sizes depend on nothing but the number of tokens.

Shape legend: N tokens, K experts per token, M = N * K assignments (assignment m is token m // K's), E experts,
T tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

NO_EXPERT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Chosen experts, and the assignments sorted by expert.

    Attributes:
        weights_NK: factor of each chosen expert's output, float32.
        indices_NK: chosen experts, the likeliest first, int32.
        assignment_M: assignments by expert, tokens in order, int32.
        offset_E1: where in `assignment_M` each expert's begin; the last entry is M. int32.
        tile_expert_T: expert whose rows a tile holds, -1 for an empty tile, int32.
        tile_start_T: first row of a tile, in `assignment_M`, int32. A tile ends with its expert's rows.
        tile_rows: most rows of a tile.
    """

    weights_NK: Tensor
    indices_NK: Tensor
    assignment_M: Tensor
    offset_E1: Tensor
    tile_expert_T: Tensor
    tile_start_T: Tensor
    tile_rows: int


def most_tiles(num_assignments: int, num_experts: int, tile_rows: int) -> int:
    """Returns how many tiles any routing can fill."""
    return num_assignments // tile_rows + min(num_assignments, num_experts)
