"""Values on the command line: text to a checked value, or an argparse error that quotes the text."""

from __future__ import annotations

import argparse

from dgemma_engine.tools.evaluation.length import Length


def length(text: str) -> Length:
    """Returns what the engine is told of a middle's length."""
    try:
        return Length.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
