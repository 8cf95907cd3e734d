"""Versions of installed packages, and the Python that holds them."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from dgemma_lsp import __version__


def version_of(package: str) -> str:
    """Returns a package's version, for a person."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "(version unknown)"


def package_versions() -> str:
    """Returns the versions of this package and of its LSP libraries, for a person."""
    names = ("pygls", "lsprotocol")
    return ", ".join((f"dgemma-lsp {__version__}", *(f"{name} {version_of(name)}" for name in names)))


def python_version() -> str:
    """Returns version and system of this Python, for a person."""
    return f"{platform.python_version()} on {platform.platform()}"
