"""The commented configurations of `engine/deploy`, which the wheel holds inside the package."""

from __future__ import annotations

from pathlib import Path

EXAMPLES = ("first_steps", "one_box", "several_machines")
_PACKAGE = Path(__file__).parents[1]


def example(name: str) -> str:
    """Returns the text of a configuration.

    Args:
        name: one of `EXAMPLES`.
    """
    # Beside the package in a checkout, in it where it was installed.
    folder = next(one for one in (_PACKAGE / "deploy", _PACKAGE.parent / "deploy") if one.is_dir())
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")
