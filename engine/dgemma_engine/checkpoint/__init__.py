"""Checkpoints: Hugging Face folder -> weights, quantized layouts, calibration, fill-in-the-middle format."""
