"""The formats a model can be quantised to, and which encoding each gives to which kind of parameter.

Router, norms, scalars, embeddings and self-conditioning stay as they were in every format. `int4` keeps attention and
the dense MLP, a fifteenth of the big model, in 8 bits; `nvfp4` keeps them as they were (docs/decisions/0012).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from dgemma_engine.checkpoint.key_map import DECODER, TensorKind
from dgemma_engine.checkpoint.quantization_scheme import scheme_json
from dgemma_engine.quantization.quantized_tensor import Encoding

_MODULES = {
    TensorKind.ATTENTION: r"self_attn\.\w+_proj",
    TensorKind.DENSE_MLP: r"mlp\.\w+_proj",
    TensorKind.EXPERTS: r"experts\.\d+\.\w+_proj",
}


class Format(StrEnum):
    """What `dgemma-engine quantize --format` can be given."""

    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"
    NVFP4 = "nvfp4"

    def encoding(self, kind: TensorKind) -> Encoding | None:
        """Returns the encoding of matrices of a kind; None leaves them as they were."""
        if kind is TensorKind.EXPERTS:
            return {
                Format.INT8: Encoding.INT8,
                Format.INT4: Encoding.INT4,
                Format.FP8: Encoding.FP8,
                Format.NVFP4: Encoding.E2M1,
            }[self]
        if kind in (TensorKind.ATTENTION, TensorKind.DENSE_MLP):
            return {Format.INT8: Encoding.INT8, Format.INT4: Encoding.INT8, Format.FP8: Encoding.FP8}.get(self)
        return None

    def config_json(self) -> dict[str, Any]:
        """Returns the `quantization_config` of a folder in this format."""
        kinds: dict[Encoding, list[str]] = {}
        for kind, module in _MODULES.items():
            if (encoding := self.encoding(kind)) is not None:
                kinds.setdefault(encoding, []).append(module)
        prefix = DECODER.replace(".", r"\.") + r"layers\.\d+\."
        return scheme_json({encoding: f"{prefix}({'|'.join(modules)})$" for encoding, modules in kinds.items()})
