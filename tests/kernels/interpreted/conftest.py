"""Kernels in Triton's interpreter, or compiled on a GPU; else collects nothing.

`tests/kernels/test_interpreted.py` runs this folder in a process of its own, since Triton reads its mode when it is
imported.
"""

from __future__ import annotations

import os

import pytest
import torch

collect_ignore_glob = (
    [] if os.environ.get("TRITON_INTERPRET") == "1" or os.environ.get("DGEMMA_TEST_GPU") == "1" else ["test_*.py"]
)


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if os.environ.get("DGEMMA_TEST_GPU") == "1" else "cpu")
