"""A small model on a processor: packed oneDNN and TorchScript."""
