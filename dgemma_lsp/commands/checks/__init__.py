"""Checks of `dgemma-lsp doctor`: probes read facts, checks turn facts into findings."""
