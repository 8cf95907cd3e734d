"""The operations as kernels: `op.py` launches those of `_op.py` and has the signatures of `reference/op.py`."""
