"""Postprocessing: raw completion -> candidate text. Standard library only."""
