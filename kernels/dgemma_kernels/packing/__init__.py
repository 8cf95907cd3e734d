"""Weights as checkpoints store them -> weights as one kind of device reads them fastest, without loss."""
