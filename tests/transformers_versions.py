"""What versions of `transformers` call differently, so that the parity tests run with each."""

from __future__ import annotations


def cache_name() -> str:
    """Returns what keys and values are called, as an argument and in an output: 5.24 renamed them."""
    import transformers

    major, minor = map(int, transformers.__version__.split(".")[:2])
    return "cache" if (major, minor) >= (5, 24) else "past_key_values"
