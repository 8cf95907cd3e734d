"""Values of a configuration, checked for kind and bounds before anything is built. Standard library only."""

from __future__ import annotations

import reprlib
from typing import Any

from dgemma_engine.errors import CheckpointError

# Bounds above those of any model that this package could run.
MOST_TOKENS = 2**22
MOST_POSITIONS = 2**27
MOST_WIDTH = 2**20
MOST_COUNT = 4_096
"""Layers, heads or experts."""
MOST_THETA = 1e15


def whole_number(place: object, key: str, value: Any, *, least: int = 1, most: int) -> int:
    """Returns a value that must be a whole number.

    Args:
        place: the file, for the message.
        key: of the value.
        value: as it was read.
        least: the smallest that is allowed.
        most: the largest that is allowed.

    Raises:
        CheckpointError: names the key, the value and what is allowed.
    """
    if type(value) is not int:
        raise CheckpointError(f"{place}: {key} must be a whole number, not {reprlib.repr(value)}; download it again")
    if not least <= value <= most:
        bound = f"at least {least}" if value < least else f"at most {most}"
        raise CheckpointError(f"{place}: {key}={reprlib.repr(value)} must be {bound}; download it again")
    return value


def real_number(place: object, key: str, value: Any, *, least: float, most: float) -> float:
    """Returns a value that must be a number; arguments and error as of `whole_number`."""
    if type(value) not in (int, float):
        raise CheckpointError(f"{place}: {key} must be a number, not {reprlib.repr(value)}; download it again")
    # No comparison with NaN holds.
    if not least <= value <= most:
        raise CheckpointError(
            f"{place}: {key}={reprlib.repr(value)} must be from {least:g} to {most:g}; download it again"
        )
    return float(value)


def object_of(place: object, key: str, value: Any) -> dict[str, Any]:
    """Returns a value that must be a JSON object; arguments and error as of `whole_number`."""
    if not isinstance(value, dict):
        raise CheckpointError(f"{place}: {key} must be an object, not {reprlib.repr(value)}; download it again")
    return value


def token_ids(place: object, key: str, value: Any, *, vocab_size: int) -> tuple[int, ...]:
    """Returns a value that must be a token id or a list of them; arguments and error as of `whole_number`."""
    values = value if isinstance(value, list) else [value]
    return tuple(whole_number(place, key, each, least=0, most=vocab_size - 1) for each in values)
