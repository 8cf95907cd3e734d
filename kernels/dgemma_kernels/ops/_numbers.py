"""Arithmetic that several kernels share: rounding, products, activations.

The interpreter computes silently wrong with 16-bit operands and rounds wrongly when it narrows, so there every operand
is widened right after its load and every result is rounded by hand; compiled kernels contain none of that.
"""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
FP8_LARGEST = tl.constexpr(448.0)
SMALLEST_SCALE = tl.constexpr(1e-12)
GROUP_SIZE = tl.constexpr(64)


@triton.jit
def narrow(x, dtype: tl.constexpr):
    """Float32 `x` in `dtype`, rounded to nearest even; fp8 must be within its range."""
    if dtype == tl.float32:
        return x
    if INTERPRETED:
        bits = x.to(tl.int32, bitcast=True)
        if dtype == tl.bfloat16:
            shift: tl.constexpr = 16
        elif dtype == tl.float16:
            shift: tl.constexpr = 13
        else:
            shift: tl.constexpr = 20
        rounded = (bits + ((1 << (shift - 1)) - 1) + ((bits >> shift) & 1)) & (-1 << shift)
        result = rounded.to(tl.float32, bitcast=True)
        if dtype == tl.float8e4nv:
            result = tl.where(tl.abs(x) < 0.015625, (x + 24576.0) - 24576.0, result)
        result = tl.where(x == x, result, x)
        return result.to(dtype)
    return x.to(dtype)


@triton.jit
def product(a, b, acc):
    """`acc + a @ b` with a float32 accumulator."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def product_fp8(a, b):
    """`a @ b` of fp8 tiles, accumulated in float32 as exactly as the hardware can."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, max_num_imprecise_acc=a.shape[1])


@triton.jit
def gelu_tanh(x):
    """`gelu` in its tanh approximation, as `x * sigmoid(2 u)`."""
    u = 0.7978845608028654 * (x + 0.044715 * x * x * x)
    return x / (1.0 + tl.exp(-2.0 * u))


@triton.jit
def capped(x, cap):
    """`cap * tanh(x / cap)`."""
    return cap * (1.0 - 2.0 / (1.0 + tl.exp(2.0 * x / cap)))


@triton.jit
def fp8_scale(largest):
    """The factor that puts `largest` at the end of fp8's range."""
    return tl.maximum(largest, SMALLEST_SCALE) / FP8_LARGEST


@triton.jit
def store_row(x, out_ptr, scale_ptr, row, column, num_columns, FORMAT: tl.constexpr, BLOCK: tl.constexpr):
    """Stores one row of float32 in a `RowFormat`; columns past the end must be 0."""
    inside = column < num_columns
    out_ptr += row.to(tl.int64) * num_columns
    if FORMAT == "plain":
        tl.store(out_ptr + column, narrow(x, out_ptr.dtype.element_ty), mask=inside)
    elif FORMAT == "fp8_token":
        scale = fp8_scale(tl.max(tl.abs(x), 0))
        tl.store(scale_ptr + row, scale)
        tl.store(out_ptr + column, narrow(x / scale, tl.float8e4nv), mask=inside)
    else:
        num_groups: tl.constexpr = BLOCK // GROUP_SIZE
        grouped = tl.reshape(x, [num_groups, GROUP_SIZE])
        scales = fp8_scale(tl.max(tl.abs(grouped), 1))
        group = tl.arange(0, num_groups)
        count = num_columns // GROUP_SIZE
        tl.store(scale_ptr + row.to(tl.int64) * count + group, scales, mask=group < count)
        scaled = tl.reshape(grouped / scales[:, None], [BLOCK])
        tl.store(out_ptr + column, narrow(scaled, tl.float8e4nv), mask=inside)
