"""Implementations of a model, and the choice of one by device and memory."""
