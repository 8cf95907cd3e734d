"""The operations in plain PyTorch: the reference of each kernel, and the implementation without a GPU."""

from dgemma_kernels.reference import (
    attention,
    experts,
    kv_store,
    linear,
    plain,
    quantization,
    routing,
    rows,
    vocabulary,
)

__all__ = ["attention", "experts", "kv_store", "linear", "plain", "quantization", "routing", "rows", "vocabulary"]
