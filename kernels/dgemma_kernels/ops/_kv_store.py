"""Pointers to one head's keys and values, from the addresses that `KVStore.place_4` holds."""

import triton
import triton.language as tl


@triton.jit
def _head(store_ptr, field: tl.constexpr, kv_head, HEAD: tl.constexpr, element_ty: tl.constexpr):
    # What torch allocates is aligned to more than the 16 bytes of the widest load.
    address = tl.multiple_of(tl.load(store_ptr + field).to(tl.pointer_type(element_ty)), 16)
    capacity, first = tl.load(store_ptr + 2), tl.load(store_ptr + 3)
    return address + (kv_head.to(tl.int64) * capacity - first) * HEAD


@triton.jit
def head_of_keys(store_ptr, kv_head, HEAD: tl.constexpr, element_ty: tl.constexpr):
    """Returns where the key of prompt position 0 lies, or would lie if it were stored."""
    return _head(store_ptr, 0, kv_head, HEAD, element_ty)


@triton.jit
def head_of_values(store_ptr, kv_head, HEAD: tl.constexpr, element_ty: tl.constexpr):
    """Returns where the value of prompt position 0 lies, or would lie if it were stored."""
    return _head(store_ptr, 1, kv_head, HEAD, element_ty)
