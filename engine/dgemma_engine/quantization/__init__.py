"""In-memory quantized tensors and layers."""
