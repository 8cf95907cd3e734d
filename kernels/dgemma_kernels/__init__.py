"""Tensor operations of a DiffusionGemma layer: references in plain PyTorch, kernels beside them.

Takes and returns tensors; independent of models, tokens and requests.
"""
