"""Subcommands of `dgemma-lsp` besides the server."""
