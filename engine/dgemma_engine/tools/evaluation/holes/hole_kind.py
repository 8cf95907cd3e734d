"""The kinds of hole that are cut for an evaluation; what each of them is, `hole_chooser` decides."""

from __future__ import annotations

from enum import StrEnum


class HoleKind(StrEnum):
    """What is cut out."""

    LINE = "line"
    """A line after its indent."""
    REST = "rest"
    """From a token within a line to its end."""
    MULTILINE = "multiline"
    """Two to eight lines."""
    SYNTAX = "syntax"
    """Arguments, an expression, a statement or a body; found in Python only."""
    SPAN = "span"
    """Characters from anywhere to anywhere."""
    BALANCED = "balanced"
    """What stands between two matching brackets."""
