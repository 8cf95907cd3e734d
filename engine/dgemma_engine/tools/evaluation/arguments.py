"""Values on the command line: text to a checked value, or argparse's complaint that carries the text."""

from __future__ import annotations

import argparse

from dgemma_engine.tools.evaluation.length import Length


def positive(text: str) -> int:
    """Returns a whole number of at least 1."""
    return _whole(text, least=1)


def not_negative(text: str) -> int:
    """Returns a whole number of at least 0."""
    return _whole(text, least=0)


def length(text: str) -> Length:
    """Returns what the engine is told of a middle's length."""
    try:
        return Length.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _whole(text: str, *, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
    return number
