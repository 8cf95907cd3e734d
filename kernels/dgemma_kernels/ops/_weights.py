"""Parts of matrix kernels: a tile of weights times a tile of activations, for every weight format.

Weights are the left operand and tokens the right one: a tile of few tokens then fills the hardware's wide side with
weights, and each weight is decoded once.
"""

import triton
import triton.language as tl

from dgemma_kernels.ops._numbers import GROUP_SIZE, INTERPRETED, product, product_fp8

QUARTER = tl.constexpr(16)

# A word holds the codes of two weights of each quarter, in 16-bit lanes. Each nibble goes into the mantissa of 128.0,
# from which 136 is subtracted.
INT4_ASM = tl.constexpr("""{
    .reg .b32 a, b, c, d, one, offset;
    mov.b32 one, 0x3f803f80;
    mov.b32 offset, 0xc308c308;
    shr.u32 b, $4, 4;
    shr.u32 c, $4, 8;
    shr.u32 d, $4, 12;
    lop3.b32 a, $4, 0x000f000f, 0x43004300, 0xea;
    lop3.b32 b, b, 0x000f000f, 0x43004300, 0xea;
    lop3.b32 c, c, 0x000f000f, 0x43004300, 0xea;
    lop3.b32 d, d, 0x000f000f, 0x43004300, 0xea;
    fma.rn.bf16x2 $0, a, one, offset;
    fma.rn.bf16x2 $1, b, one, offset;
    fma.rn.bf16x2 $2, c, one, offset;
    fma.rn.bf16x2 $3, d, one, offset;
}""")

# An e2m1 code on bf16's sign, lowest exponent bits and highest mantissa bit is its value times 2**-126, subnormals too.
E2M1_ASM = tl.constexpr("""{
    .reg .b32 m, s;
    shl.b32 m, $4, 6;
    shl.b32 s, $4, 12;
    and.b32 s, s, 0x80008000;
    lop3.b32 $0, m, 0x01c001c0, s, 0xea;
    shl.b32 m, $4, 2;
    shl.b32 s, $4, 8;
    and.b32 s, s, 0x80008000;
    lop3.b32 $1, m, 0x01c001c0, s, 0xea;
    shr.u32 m, $4, 2;
    shl.b32 s, $4, 4;
    and.b32 s, s, 0x80008000;
    lop3.b32 $2, m, 0x01c001c0, s, 0xea;
    shr.u32 m, $4, 6;
    and.b32 s, $4, 0x80008000;
    lop3.b32 $3, m, 0x01c001c0, s, 0xea;
}""")

# Scales take 2**118 of the missing 2**126, which keeps them finite in bf16; `packing/gpu.py` puts 2**8 into the row's.
E2M1_SCALE = tl.constexpr(2.0**118)


@triton.jit
def _e2m1(code):
    """The value of e2m1 codes, times 2**-126 as the compiled decoder's."""
    magnitude = code & 7
    value = tl.where(magnitude < 2, 0.5 * magnitude, (1.0 + 0.5 * (magnitude & 1)) * tl.exp2((magnitude >> 1) - 1.0))
    return tl.where(code >= 8, -value, value) * 2.0**-126


@triton.jit
def int4_quarters(words):
    """Values of the four nibbles of 16-bit words."""
    if INTERPRETED:
        return (
            (words & 15).to(tl.float32) - 8.0,
            ((words >> 4) & 15).to(tl.float32) - 8.0,
            ((words >> 8) & 15).to(tl.float32) - 8.0,
            ((words >> 12) & 15).to(tl.float32) - 8.0,
        )
    else:
        return tl.inline_asm_elementwise(
            INT4_ASM, "=r,=r,=r,=r,r", [words], dtype=(tl.bfloat16, tl.bfloat16, tl.bfloat16, tl.bfloat16),
            is_pure=True, pack=2,
        )  # fmt: skip


@triton.jit
def e2m1_quarters(words):
    """Values of the four nibbles of 16-bit words, times 2**-126."""
    if INTERPRETED:
        codes = words.to(tl.int32)
        return _e2m1(codes & 15), _e2m1((codes >> 4) & 15), _e2m1((codes >> 8) & 15), _e2m1((codes >> 12) & 15)
    else:
        return tl.inline_asm_elementwise(
            E2M1_ASM, "=r,=r,=r,=r,r", [words], dtype=(tl.bfloat16, tl.bfloat16, tl.bfloat16, tl.bfloat16),
            is_pure=True, pack=2,
        )  # fmt: skip


@triton.jit
def _add_quarter(acc, values, scale_ptr, place, inside, x):
    """Adds 16 inputs with a scale each 16: e2m1 times e4m3 is exact in bf16."""
    scale = tl.load(scale_ptr + place, mask=inside, other=0.0).to(tl.float32) * E2M1_SCALE
    if not INTERPRETED:
        scale = scale.to(tl.bfloat16)
    return product(values * scale[:, None], x, acc)


@triton.jit
def load_rows(x_ptr, row_start, inside, first, num_inputs, WIDTH: tl.constexpr, MASKED: tl.constexpr):
    """Activations [WIDTH, rows] of columns from `first` on."""
    column = first + tl.arange(0, WIDTH)
    mask = inside[None, :]
    if MASKED:
        mask = mask & (column < num_inputs)[:, None]
    return tl.load(x_ptr + row_start[None, :] + column[:, None], mask=mask, other=0.0)


@triton.jit
def load_weights(data_ptr, feature, inside, first, num_inputs, WIDTH: tl.constexpr, MASKED: tl.constexpr):
    """Weights [features, WIDTH] of inputs from `first` on, stored one to an element."""
    column = first + tl.arange(0, WIDTH)
    mask = inside[:, None]
    if MASKED:
        mask = mask & (column < num_inputs)[None, :]
    return tl.load(data_ptr + feature.to(tl.int64)[:, None] * num_inputs + column[None, :], mask=mask, other=0.0)


@triton.jit
def load_x(x_ptr, row_start, inside, group, num_inputs, FORMAT: tl.constexpr, MASKED: tl.constexpr):
    """Activations of a group of 64 inputs: [64, rows], four times the same, or its four quarters."""
    first = group * GROUP_SIZE
    if FORMAT == "int4" or FORMAT == "nvfp4":
        x0 = load_rows(x_ptr, row_start, inside, first, num_inputs, QUARTER, MASKED)
        x1 = load_rows(x_ptr, row_start, inside, first + 16, num_inputs, QUARTER, MASKED)
        x2 = load_rows(x_ptr, row_start, inside, first + 32, num_inputs, QUARTER, MASKED)
        x3 = load_rows(x_ptr, row_start, inside, first + 48, num_inputs, QUARTER, MASKED)
        return x0, x1, x2, x3
    else:
        x = load_rows(x_ptr, row_start, inside, first, num_inputs, GROUP_SIZE, MASKED)
        return x, x, x, x


@triton.jit
def load_scale(scale_ptr, feature, inside, group, num_features):
    """Scales of a group of 64 inputs, float32 [features], of int8 and int4 weights; the pointer is the expert's."""
    return tl.load(scale_ptr + group * num_features + feature, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def add_group(
    acc, data_ptr, scale_ptr, feature, inside, group, num_features, num_inputs, x, x_scale, scale,
    FORMAT: tl.constexpr,
):  # fmt: skip
    """Adds the product of one group of 64 inputs; pointers are the expert's, `x` is of `load_x`.

    `x_scale` is of fp8 rows; `scale`, of `load_scale`, is None where it is loaded here.
    """
    x0, x1, x2, x3 = x
    place = group * num_features + feature
    column = tl.arange(0, QUARTER)
    if FORMAT == "fp8":
        weights = load_weights(data_ptr, feature, inside, group * GROUP_SIZE, num_inputs, GROUP_SIZE, False)
        acc += product_fp8(weights, x0) * x_scale[None, :]
    elif FORMAT == "nvfp4":
        words = tl.load(data_ptr + place[:, None] * QUARTER + column[None, :], mask=inside[:, None], other=0)
        w0, w1, w2, w3 = e2m1_quarters(words)
        place += 3 * group * num_features
        acc = _add_quarter(acc, w0, scale_ptr, place, inside, x0)
        acc = _add_quarter(acc, w1, scale_ptr, place + num_features, inside, x1)
        acc = _add_quarter(acc, w2, scale_ptr, place + 2 * num_features, inside, x2)
        acc = _add_quarter(acc, w3, scale_ptr, place + 3 * num_features, inside, x3)
    else:
        if FORMAT == "int8":
            weights = load_weights(data_ptr, feature, inside, group * GROUP_SIZE, num_inputs, GROUP_SIZE, False)
            part = product(weights if INTERPRETED else weights.to(tl.bfloat16), x0, None)
        else:
            words = tl.load(data_ptr + place[:, None] * QUARTER + column[None, :], mask=inside[:, None], other=0)
            w0, w1, w2, w3 = int4_quarters(words)
            part = product(w3, x3, product(w2, x2, product(w1, x1, product(w0, x0, None))))
        if scale is None:
            scale = load_scale(scale_ptr, feature, inside, group, num_features)
        acc += part * scale[:, None]
    return acc
