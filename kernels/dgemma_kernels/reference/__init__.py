"""The operations in plain PyTorch: what each kernel is compared with, and what runs without a GPU."""

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
