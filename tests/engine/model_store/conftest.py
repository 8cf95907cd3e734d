"""A package index on this machine, and a wheel that holds a small model."""

from __future__ import annotations

from tests.package_index import index, made

__all__ = ["index", "made"]
