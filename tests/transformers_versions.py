"""Names that differ between versions of `transformers`, so that the parity tests run with each version."""

from __future__ import annotations


def cache_name() -> str:
    """Returns the name of the cache of keys and values, as an argument and in an output: 5.24 renamed it."""
    import transformers

    major, minor = map(int, transformers.__version__.split(".")[:2])
    return "cache" if (major, minor) >= (5, 24) else "past_key_values"
