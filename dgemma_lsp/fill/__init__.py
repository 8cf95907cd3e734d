"""Filling a selection or a placeholder with several candidates."""
