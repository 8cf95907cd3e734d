"""Syntax by tree-sitter: error check and definitions."""
