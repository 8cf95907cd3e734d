"""DiffusionGemma in plain PyTorch: layers, masks, KV cache, operations."""
