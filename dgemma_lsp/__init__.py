"""The language server of dgemma-lsp. Importing this package loads neither pygls nor torch."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dgemma-lsp")
except PackageNotFoundError:
    __version__ = "0+unknown"

__all__ = ["__version__"]
