"""Which launch parameters the tuner tries for each kernel, what judges them, and in which order kernels are tuned."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

CHOICES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "experts_up": {"BLOCK_N": (64, 128), "BLOCK_K": (64, 128, 256), "num_stages": (2, 3, 4)},
    "experts_down": {"BLOCK_N": (64, 128), "BLOCK_K": (64, 128), "num_warps": (4, 8), "num_stages": (2, 3, 4)},
    "tiles": {"SMALL": (16, 32, 64), "LARGE": (64, 128)},
    "linear": {
        "BLOCK_N": (64, 128),
        "BLOCK_T": (64, 128, 256),
        "BLOCK_K": (64, 128),
        "num_warps": (4, 8),
        "num_stages": (3, 4),
    },
    "attention": {"BLOCK_M": (32, 64, 128), "BLOCK_S": (16, 32, 64), "num_warps": (4, 8), "num_stages": (1, 2, 3)},
    "route": {"BLOCK_ROWS": (16, 32), "BLOCK_K": (64, 128), "num_warps": (4, 8)},
    "soft_embeddings": {"BLOCK_D": (128, 256), "NUM_SPLITS": (4, 6, 12), "num_stages": (3, 4)},
    "vocabulary": {"BLOCK": (2048, 4096, 8192), "num_warps": (4, 8)},
    "norm": {"num_warps": (4, 8)},
    "norm_rotary": {"num_warps": (1, 2)},
    "gated_gelu": {"num_warps": (4, 8)},
}
# Ways to launch that the default tables leave off: tried one by one, before the choices, on the table's own entry.
SWITCHES: Mapping[str, Sequence[Mapping[str, int]]] = {
    "experts_up": ({"AHEAD": 1},),
    "experts_down": ({"AHEAD": 1}, {"EACH": 2}, {"EACH": 4}, {"AHEAD": 1, "EACH": 2}),
    "linear": ({"AHEAD": 1}, {"FILL": 132}, {"FILL": 264}, {"FILL": 396}, {"AHEAD": 1, "FILL": 264}),
    "attention": ({"LOOPS": 2}, {"FILL": 132}, {"LOOPS": 2, "FILL": 132}, {"LOOPS": 2, "FILL": 264}),
}
# Formats with one scale for 64 inputs, which `AHEAD` loads early.
_WITH_SCALES = {
    "experts_up": ("fp8", "int8", "int4"),
    "experts_down": ("fp8", "int8", "int4"),
    "linear": ("int8", "int4"),
}
# The calls that an entry of the table is judged by, all of them together.
JUDGES: Mapping[str, tuple[str, ...]] = {
    "tiles": ("experts.int4.canvas", "experts.int4.prompt"),
    "norm": ("merge_norm",),
    "norm_rotary": ("norm_rotary.256",),
    "gated_gelu": ("gated_gelu",),
    "route": ("route.canvas",),
    **{
        f"linear.{form}": tuple(f"linear.{form}.{name}" for name in ("qkv_sliding", "o_sliding", "dense_down"))
        for form in ("plain", "fp8", "int8", "int4", "nvfp4")
    },
    "attention.256": ("attention.canvas.256",),
    "attention.512": ("attention.canvas.512",),
    "vocabulary": ("distribution",),
    "soft_embeddings": ("soft_embeddings",),
}
# The kernels of an int4 model (its dense matrices are int8) and of an fp8 model are tuned first.
FORMATS = ("int4", "fp8", "int8", "plain", "nvfp4")
NUM_FIRST_FORMATS = 3


def candidates(kernel: str, entry: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Yields the table's own entry, that with each of the kernel's switches, then every combination of its choices."""
    yield dict(entry)
    name, _, rest = kernel.partition(".")
    for switch in SWITCHES.get(name, ()):
        changed = {**entry, **switch}
        if changed != dict(entry) and ("AHEAD" not in switch or rest.partition(".")[0] in _WITH_SCALES[name]):
            yield changed
    choices = CHOICES.get(name, {})
    for values in itertools.product(*choices.values()):
        changed = {**entry, **dict(zip(choices, values, strict=True))}
        if changed != dict(entry):
            yield changed


def judges(kernel: str) -> tuple[str, ...]:
    """Returns the cases that measure a kernel; none for one that is not tuned."""
    if kernel.startswith("experts_"):
        _, weight_format, *size = kernel.split(".")
        return (f"experts.{weight_format}.{'prompt' if size else 'canvas'}",)
    return JUDGES.get(kernel, ())


def ordered(kernels: Iterable[str], only: Sequence[str] = ()) -> list[str]:
    """Returns the kernels that can be tuned, those of most worth first.

    Args:
        kernels: names of a table's entries.
        only: whole names, or beginnings that end before a dot; none for all.
    """

    def rank(kernel: str) -> tuple[bool, bool, int, int]:
        name, _, rest = kernel.partition(".")
        form = rest.partition(".")[0]
        place = FORMATS.index(form) if form in FORMATS else 0
        return kernel.endswith(".large"), place >= NUM_FIRST_FORMATS, list(CHOICES).index(name), place

    def is_chosen(kernel: str) -> bool:
        return not only or any(f"{kernel}.".startswith(f"{name}.") for name in only)

    return sorted((kernel for kernel in kernels if judges(kernel) and is_chosen(kernel)), key=rank)
