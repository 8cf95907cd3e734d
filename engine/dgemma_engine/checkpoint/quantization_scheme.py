"""What `quantization_config` of a model folder says of its weights: read and checked, or written.

Read are compressed-tensors (`pack-quantized`, `float-quantized`, `nvfp4-pack-quantized`), NVIDIA ModelOpt's NVFP4, and
symmetric 4-bit weights in GPTQ's packing, as GPTQ and AutoRound write them; anything else is refused by name. Written
are the compressed-tensors layouts. Only weights count: activations are computed in the model's own number format,
whatever the file suggests for them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dgemma_engine.config_values import MOST_WIDTH, object_of, whole_number
from dgemma_engine.errors import CheckpointError
from dgemma_engine.quantization.quantized_tensor import E2M1_GROUP, INT_GROUP, Encoding

CONFIG_KEY = "quantization_config"

_MODELOPT_FILE = "hf_quant_config.json"
_REMEDY = (
    "use the bf16 checkpoint, or one in compressed-tensors int4, int8, FP8 or NVFP4, in ModelOpt NVFP4, or in "
    "symmetric 4 bits of AutoRound or GPTQ"
)
# The first is what GPTQ itself writes and does not name.
_GPTQ_PACKINGS = ("auto_gptq", "auto_round:auto_gptq", "auto_round:gptq")
_FORMATS = ("pack-quantized", "float-quantized", "nvfp4-pack-quantized")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredScheme:
    """Encodings of a folder's quantised weights.

    Attributes:
        group_sizes: input columns per scale of each integer encoding in use; None is one scale a row.
        gptq_zero: what GPTQ's packing stores of the one zero point of symmetric weights; None for another packing.
    """

    group_sizes: dict[Encoding, int | None]
    gptq_zero: int | None = None

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Reads the scheme of `folder`, whose `config.json` was read before; None if nothing in it is quantised.

        Raises:
            CheckpointError: names what of the scheme is not supported, and what to do.
        """
        values: Any = json.loads((folder / "config.json").read_text(encoding="utf-8")).get(CONFIG_KEY)
        if values is None and (folder / _MODELOPT_FILE).exists():
            whole = json.loads((folder / _MODELOPT_FILE).read_text(encoding="utf-8"))
            values = {"quant_method": "modelopt", **whole.get("quantization", {})}
        if values is None:
            return None
        values = object_of("config.json", CONFIG_KEY, values)
        method = values.get("quant_method")
        if method == "modelopt":
            if values.get("quant_algo") != "NVFP4":
                raise _unsupported(f"quant_algo={values.get('quant_algo')!r} of ModelOpt")
            return cls(group_sizes={})
        if method in ("gptq", "auto-round"):
            return cls(group_sizes={Encoding.INT4: _gptq_group(values, method)}, gptq_zero=_gptq_zero(values))
        if method != "compressed-tensors":
            raise _unsupported(f"quant_method={method!r}")
        groups: dict[Encoding, int | None] = {}
        for name, described in object_of("config.json", "config_groups", values.get("config_groups") or {}).items():
            group = object_of("config.json", name, described)
            layout = group.get("format") or values.get("format")
            if layout not in _FORMATS:
                raise _unsupported(f"format={layout!r}")
            encoding, size = _weights(
                name, object_of("config.json", f"weights of {name}", group.get("weights") or {}), layout
            )
            if groups.setdefault(encoding, size) != size:
                raise _unsupported(f"{encoding.value} with both {groups[encoding]} and {size} columns a group")
        return cls(group_sizes={key: size for key, size in groups.items() if key in (Encoding.INT8, Encoding.INT4)})


def scheme_json(targets: dict[Encoding, str]) -> dict[str, Any]:
    """Returns the `quantization_config` of a folder in compressed-tensors layouts.

    Args:
        targets: for each encoding the regular expression that names of its modules match from their start; all of one
            layout. Everything else is a plain weight.
    """
    layouts = {_layout(encoding) for encoding in targets}
    assert len(layouts) == 1
    groups = {
        f"group_{i}": {
            "targets": [f"re:{expression}"],
            "weights": _WEIGHTS[encoding],
            "input_activations": _FP8_ACTIVATIONS if encoding is Encoding.FP8 else None,
            "output_activations": None,
            "format": _layout(encoding),
        }
        for i, (encoding, expression) in enumerate(targets.items())
    }
    return {
        "quant_method": "compressed-tensors",
        "format": layouts.pop(),
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [],
        "kv_cache_scheme": None,
    }


def _layout(encoding: Encoding) -> str:
    return {Encoding.FP8: "float-quantized", Encoding.E2M1: "nvfp4-pack-quantized"}.get(encoding, "pack-quantized")


def _integers(num_bits: int) -> dict[str, Any]:
    kind = {"num_bits": num_bits, "type": "int", "strategy": "group", "group_size": INT_GROUP}
    return {**kind, "symmetric": True, "dynamic": False}


_WEIGHTS: dict[Encoding, dict[str, Any]] = {
    Encoding.INT8: _integers(8),
    Encoding.INT4: _integers(4),
    Encoding.FP8: {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True, "dynamic": False},
    Encoding.E2M1: {
        "num_bits": 4,
        "type": "float",
        "strategy": "tensor_group",
        "group_size": E2M1_GROUP,
        "symmetric": True,
        "dynamic": False,
        "scale_dtype": "torch.float8_e4m3fn",
    },
}
# The field's name for this layout, FP8-dynamic: readers that can multiply in 8 bits scale activations per token.
_FP8_ACTIVATIONS = {"num_bits": 8, "type": "float", "strategy": "token", "symmetric": True, "dynamic": True}


def _gptq_group(values: dict[str, Any], method: str) -> int:
    """Returns the columns of a group; refuses what is not symmetric, in 4 bits and packed as GPTQ does."""
    packing = values.get("packing_format", _GPTQ_PACKINGS[0] if method == "gptq" else None)
    if packing not in _GPTQ_PACKINGS:
        raise _unsupported(f"packing_format={packing!r} of {method}")
    # GPTQ is symmetric where it does not say.
    is_symmetric, kind = values.get("sym", method == "gptq"), values.get("data_type", "int")
    if values.get("bits") != 4 or kind != "int" or not is_symmetric:
        symmetry = "symmetric" if is_symmetric else "asymmetric"
        raise _unsupported(f"{method} with {symmetry} weights of {values.get('bits')!r} bits ({kind})")
    if values.get("desc_act"):
        raise _unsupported(f"{method} with weights ordered by activation (desc_act)")
    return whole_number("config.json", "group_size", values.get("group_size"), least=8, most=MOST_WIDTH)


def _gptq_zero(values: dict[str, Any]) -> int:
    """Returns the stored zero point of symmetric weights: 8, of which the first version of the format subtracts 1."""
    return 8 if values.get("checkpoint_format") == "gptq_v2" else 7


def _weights(name: str, weights: dict[str, Any], layout: str) -> tuple[Encoding, int | None]:
    what = (weights.get("type"), weights.get("num_bits"), weights.get("strategy"))
    if not weights.get("symmetric", True):
        raise _unsupported(f"{name}: asymmetric weights")
    if weights.get("actorder") in ("group", True):
        raise _unsupported(f"{name}: weights ordered by activation (actorder={weights['actorder']!r})")
    size = weights.get("group_size")
    if size is not None:
        size = whole_number("config.json", f"group_size of {name}", size, least=-1, most=MOST_WIDTH)
    match layout, what:
        case "pack-quantized", ("int", 4 | 8 as bits, "group" | "channel" as strategy):
            return Encoding.INT4 if bits == 4 else Encoding.INT8, size if strategy == "group" else None
        case "float-quantized", ("float", 8, "channel"):
            return Encoding.FP8, None
        case "nvfp4-pack-quantized", ("float", 4, "tensor_group") if size == E2M1_GROUP:
            return Encoding.E2M1, size
        case _:
            raise _unsupported(f"{name}: {layout} with {what[1]}-bit {what[0]} weights per {what[2]} ({size=})")


def _unsupported(what: str) -> CheckpointError:
    return CheckpointError(f"config.json: {what} is not supported; {_REMEDY}")
