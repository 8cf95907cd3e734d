"""The resident engine of dgemma-lsp. Importing it loads no torch: the language server uses parts of it."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dgemma-lsp")
except PackageNotFoundError:
    __version__ = "0+unknown"

__all__ = ["__version__"]
