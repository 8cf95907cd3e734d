"""Conversion of checkpoints: quantize and export, tensor by tensor."""
