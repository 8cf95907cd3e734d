"""The ways in which ggml stores values: in blocks of a fixed number of values and bytes. Standard library only.

Numbers and sizes follow `gguf/constants.py` of the `gguf` package (0.19.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorType:
    """One type.

    Attributes:
        name: as ggml calls it.
        block_values: values of a block, which lie side by side in a row.
        block_bytes: bytes of a block.
    """

    name: str
    block_values: int
    block_bytes: int

    @property
    def is_quantised(self) -> bool:
        """Whether values share a scale, so that expanding them takes more memory."""
        return self.block_values > 1


TENSOR_TYPES: Mapping[int, TensorType] = MappingProxyType(
    {
        0: TensorType(name="F32", block_values=1, block_bytes=4),
        1: TensorType(name="F16", block_values=1, block_bytes=2),
        2: TensorType(name="Q4_0", block_values=32, block_bytes=18),
        3: TensorType(name="Q4_1", block_values=32, block_bytes=20),
        6: TensorType(name="Q5_0", block_values=32, block_bytes=22),
        7: TensorType(name="Q5_1", block_values=32, block_bytes=24),
        8: TensorType(name="Q8_0", block_values=32, block_bytes=34),
        12: TensorType(name="Q4_K", block_values=256, block_bytes=144),
        13: TensorType(name="Q5_K", block_values=256, block_bytes=176),
        14: TensorType(name="Q6_K", block_values=256, block_bytes=210),
        20: TensorType(name="IQ4_NL", block_values=32, block_bytes=18),
        23: TensorType(name="IQ4_XS", block_values=256, block_bytes=136),
        30: TensorType(name="BF16", block_values=1, block_bytes=2),
    }
)
"""By ggml's number: those that this package expands."""

# Types that ggml defines and this package does not expand, for messages.
_OTHER_TYPES = {
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S",
    22: "IQ2_S", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0",
    39: "MXFP4", 40: "NVFP4",
}  # fmt: skip


def name_of_type(number: int) -> str:
    """Returns ggml's name of a type that this package does not expand."""
    return _OTHER_TYPES.get(number, f"type {number}")
