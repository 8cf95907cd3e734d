"""Which packages are kept whole for evaluation: a function of the name alone, and so the same in every corpus."""

from __future__ import annotations

from dgemma_engine.tools.corpus.stable_hash import stable_hash

HELD_OUT_SHARE = 0.05


def is_held_out(package: str, share: float = HELD_OUT_SHARE) -> bool:
    """Whether a package is for evaluation.

    Args:
        package: its name.
        share: of the packages that are; 0 holds out none.
    """
    return stable_hash(f"held out: {package}") % 1_000 < share * 1_000
