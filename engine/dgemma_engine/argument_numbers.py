"""Numbers on the command line: text to a checked number, or argparse's complaint that carries the text."""

from __future__ import annotations

import argparse
import math


def positive(text: str) -> int:
    """Returns a whole number of at least 1."""
    return _whole(text, least=1)


def not_negative(text: str) -> int:
    """Returns a whole number of at least 0."""
    return _whole(text, least=0)


def above_zero(text: str) -> float:
    """Returns a finite number of more than 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of more than 0")
    return number


def _whole(text: str, *, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
    return number
