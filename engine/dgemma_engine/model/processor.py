"""The number format in which this processor multiplies matrices fastest: measured once, then read from a cache file.

The processor's name is not enough: bfloat16 is slow where it is emulated, and fast with matrix units or with AVX-512
instructions for it. The measurement takes 250 ms and is kept per processor, torch, instruction set and threads.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch
from dgemma_kernels.packing.cpu import PackedMatrix
from dgemma_kernels.packing.few_bits import FEW_ROWS, ProductKinds, RowWeights
from torch import Tensor

_FILE = "processor.json"
# Rows between those of a canvas and of a piece of a prompt, and matrices of 2.4 MB in bfloat16, as many as no
# processor's cache holds.
_ROWS, _SHAPE, _NUM_MATRICES, _ROUNDS = 128, (2_048, 576), 24, 9
# Of the products with many rows, which are not bound by reading the matrices.
_FEW_MATRICES = 4
# A product this many times slower than the fastest, in this many trials, is not measured again.
_FAR, _TRIALS = 8, 3
# A format that loses digits has to be this many times as fast.
_WORTH = 1.15
# Environment variables that restrict the instruction set.
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductSpeeds:
    """Milliseconds of the same products; infinite for a format that this torch cannot multiply.

    Attributes:
        float32: of 128 rows.
        bfloat16: of 128 rows.
        int8: of 128 rows in 8 bits, weights and inputs.
        row_float32: of one row.
        row_bfloat16: of one row.
        row_int8: of one row with 8-bit weights, and given in the format of `dtype`.
        row_int4: of one row with 4-bit weights, likewise.
        few_dense: of `FEW_ROWS` rows, in the format of `dtype`.
        few_int8: of as many in 8 bits, weights and inputs.
        few_int4: of as many with 4-bit weights.
    """

    float32: float
    bfloat16: float
    int8: float
    row_float32: float
    row_bfloat16: float
    row_int8: float
    row_int4: float
    few_dense: float
    few_int8: float
    few_int4: float

    @property
    def dtype(self) -> torch.dtype:
        """The format for weights."""
        return torch.bfloat16 if self.float32 > _WORTH * self.bfloat16 else torch.float32

    def products(self, *, in_four_bits: bool) -> ProductKinds:
        """Returns the weights that products read.

        Args:
            in_four_bits: whether the weights were stored in 4 bits: then the 4-bit ones are equal to them.
        """
        is_bfloat16 = self.dtype is torch.bfloat16
        many, one = (self.bfloat16, self.row_bfloat16) if is_bfloat16 else (self.float32, self.row_float32)
        # With an MLP in 8 bits no dense weights are kept for a token written alone, which may not take longer then.
        int8_mlp = many > _WORTH * self.int8 and self.row_int8 <= _WORTH * one
        row = RowWeights.INT8 if int8_mlp or one > _WORTH * self.row_int8 else RowWeights.DENSE
        if in_four_bits and _WORTH * self.row_int4 < min(one, _WORTH * self.row_int8):
            is_for_few = _WORTH * self.few_int4 < (self.few_int8 if int8_mlp else self.few_dense)
            # Tokens that are checked together are worth it only if they take hardly longer than a single one.
            row = RowWeights.FEW_INT4 if is_for_few and self.few_int4 <= 2 * self.row_int4 else RowWeights.INT4
        return ProductKinds(row=row, int8_mlp=int8_mlp)

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Self:
        """Returns the values of a file.

        Raises:
            TypeError: other names, or a value that is no number.
            ValueError: a value that no measurement gives.
        """
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values.values()):
            raise TypeError(values)
        if not all(value > 0 for value in values.values()):
            raise ValueError(values)
        return cls(**values)

    @classmethod
    def measure(cls) -> Self:
        """Measures, with as many threads as torch now uses."""
        matrices = {
            name: _matrices(dtype) for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        }
        dense = {name: (each[:_FEW_MATRICES], _ROWS) for name, each in matrices.items()}
        rows = {f"row_{name}": (each, 1) for name, each in matrices.items()}
        names = (field.name for field in fields(cls))
        times = dict.fromkeys(names, math.inf) | _milliseconds(dense | rows)
        dtype = cls(**times).dtype
        few: dict[str, tuple[list[PackedMatrix], int]] = {}
        for kind, bits in ((RowWeights.INT8, 8), (RowWeights.FEW_INT4, 4)):
            copies = _matrices(dtype, kind)
            if copies[0].few_bits.row_bits == bits:
                few[f"row_int{bits}"] = copies, 1
                few |= {"few_int4": (copies, FEW_ROWS)} if bits == 4 else {}
        whole = _matrices(dtype, int8=True)
        if whole[0].few_bits.input_levels:
            few |= {"int8": (whole[:_FEW_MATRICES], _ROWS), "few_int8": (whole, FEW_ROWS)}
        # The dense ones that they are compared with once more: the load of the machine may have changed.
        name = str(dtype).removeprefix("torch.")
        few |= {name: dense[name], f"row_{name}": rows[f"row_{name}"], "few_dense": (matrices[name], FEW_ROWS)}
        return cls(**times | _milliseconds(few))


@cache
def _speeds(path: Path, key: str) -> ProductSpeeds:
    known = _read(path)
    try:
        return ProductSpeeds.checked(known[key])
    except (KeyError, TypeError, ValueError):
        speeds = ProductSpeeds.measure()
        _write(path, {key: asdict(speeds)} | {other: known[other] for other in list(known)[:15] if other != key})
        return speeds


def product_speeds(environ: Mapping[str, str]) -> ProductSpeeds:
    """Returns what was measured on this processor with this torch, or measures it now.

    Args:
        environ: the process's environment; `XDG_CACHE_HOME`, else `~/.cache`, is where the result is kept. Without a
            place to keep it every start measures.
    """
    home = environ.get("XDG_CACHE_HOME", "") or str(Path(environ.get("HOME", "/nonexistent")) / ".cache")
    limits = " ".join(f"{name}={environ[name]}" for name in _LIMITS if name in environ)
    folder = Path(home)
    if not folder.is_absolute():
        # The XDG specification ignores a relative path.
        folder = Path(environ.get("HOME", "/nonexistent")) / ".cache"
    parts = (_processor(), torch.__version__, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), limits)
    return _speeds(folder / "dgemma-lsp" / _FILE, " | ".join(map(str, parts)))


def _matrices(dtype: torch.dtype, row: RowWeights = RowWeights.DENSE, *, int8: bool = False) -> list[PackedMatrix]:
    # Sixteen values in each group of inputs, so that the weights may be kept in 4 bits.
    weight = (torch.arange(_SHAPE[1]) % 16 - 8).mul(0.01).repeat(_SHAPE[0], 1).to(dtype)
    return [PackedMatrix(weight, row, int8=int8) for _ in range(_NUM_MATRICES)]


@torch.inference_mode()
def _milliseconds(products: Mapping[str, tuple[list[PackedMatrix], int]]) -> dict[str, float]:
    """Returns the time of each kind of product, scaled to `_NUM_MATRICES` matrices.

    They take turns, and the least time of each counts: other load only adds. One that is far slower than another of as
    many rows, as where a format is emulated, is measured with one matrix only.
    """

    def timed(name: str, num: int) -> float:
        matrices, num_rows = products[name]
        weight = matrices[0].weight
        dtype = weight.dtype if len(weight) else torch.float32
        x_NI = torch.ones(num_rows, _SHAPE[1], dtype=dtype)
        return _timed(matrices[:num], x_NI) * _NUM_MATRICES / len(matrices[:num])

    # The first product of a kind takes longer than later ones.
    trials = {name: min(timed(name, 1) for _ in range(_TRIALS)) for name in products}
    least = {
        num: min(trials[name] for name, (_, rows) in products.items() if rows == num)
        for num in {rows for _, rows in products.values()}
    }
    slow = {name: trial for name, trial in trials.items() if trial > _FAR * least[products[name][1]]}
    times = dict.fromkeys(products, math.inf) | slow
    for _ in range(_ROUNDS):
        for name in products.keys() - slow.keys():
            times[name] = min(times[name], timed(name, len(products[name][0])))
    return {name: round(took, 3) for name, took in times.items()}


def _timed(matrices: list[PackedMatrix], x_NI: Tensor) -> float:
    # With one thread processor time, which is independent of other processes.
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    for matrix in matrices:
        matrix(x_NI)
    return (clock() - started) * 1e3


def _processor() -> str:
    """Returns the processor's name as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _read(path: Path) -> dict[str, Any]:
    try:
        known: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(path: Path, known: Mapping[str, Any]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
