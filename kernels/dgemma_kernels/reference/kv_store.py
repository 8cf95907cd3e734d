"""Views of a layer's keys and values at the addresses that the device holds: what a kernel reads, in plain PyTorch."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import torch
from torch import Tensor

from dgemma_kernels.tensors.kv_store import KVStore


def tensors(store: KVStore) -> tuple[Tensor, Tensor, int]:
    """Returns keys and values, [G, S, d] each, without a copy, and the prompt position of their first row."""
    k_address, v_address, capacity, first = store.place_4.tolist()
    shape = (store.num_kv, capacity, store.head_dim)
    k_GSd, v_GSd = (_view(address, shape, store) for address in (k_address, v_address))
    return k_GSd, v_GSd, first


def _view(address: int, shape: tuple[int, int, int], store: KVStore) -> Tensor:
    device, num_bytes = store.place_4.device, torch.Size(shape).numel() * store.dtype.itemsize
    if device.type == "cpu":
        memory = (ctypes.c_byte * num_bytes).from_address(address)
        return torch.frombuffer(memory, dtype=store.dtype).view(shape)
    described = {"shape": (num_bytes,), "typestr": "|u1", "data": (address, False), "version": 2}
    memory = SimpleNamespace(__cuda_array_interface__=described)
    return torch.as_tensor(memory, device=device).view(store.dtype).view(shape)
