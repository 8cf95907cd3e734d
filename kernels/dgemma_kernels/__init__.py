"""Tensor operations of a DiffusionGemma layer: references in plain PyTorch, kernels beside them.

Knows tensors; knows no model, token or request.
"""
