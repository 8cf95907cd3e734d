"""Infilling: `Context` -> `Infill` by hypotheses, generation and ranking."""
