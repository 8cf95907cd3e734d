"""Switches that the default launch tables leave off because no card has measured them: by name, as table changes."""

from __future__ import annotations

from collections.abc import Mapping

# Names -> entries of a launch table -> values; numbers of programs are for 132 multiprocessors.
GAINS: Mapping[str, Mapping[str, Mapping[str, int]]] = {
    "split_k": {"linear.plain": {"FILL": 132}, "linear.int8": {"BLOCK_T": 128, "FILL": 264}},
    # Two loops of heads of 512 take more registers than there are.
    "split_kv": {"attention.256": {"FILL": 132, "LOOPS": 2}, "attention.512": {"FILL": 132}},
    "route_beside": {"pass": {"ROUTE_BESIDE": 1}},
    "scales_ahead": {
        **{f"experts_{part}.{form}": {"AHEAD": 1} for part in ("up", "down") for form in ("fp8", "int8", "int4")},
        **{f"linear.{form}": {"AHEAD": 1} for form in ("int8", "int4")},
    },
    "down_blocks": {"experts_down": {"EACH": 2}},
    "renoise_ahead": {"pass": {"RENOISE_AHEAD": 1}},
}


def together(names: tuple[str, ...] = tuple(GAINS)) -> dict[str, dict[str, int]]:
    """Returns the changes of several gains at once."""
    found: dict[str, dict[str, int]] = {}
    for name in names:
        for kernels, values in GAINS[name].items():
            found.setdefault(kernels, {}).update(values)
    return found
