"""Which device the model runs on, with how many threads, and in which number format."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from dgemma_kernels.packing.few_bits import COMPACT, ProductKinds

from dgemma_engine.errors import CheckpointError
from dgemma_engine.model.processor import product_speeds

_log = logging.getLogger(__name__)

# Tokens encoded between two checks of the deadline: longer pieces are faster, shorter ones stop sooner. A GPU takes
# longer to start a short piece than to encode it.
PIECE_TOKENS: Mapping[str, int] = {"cpu": 256, "cuda": 2_048}
# Of one user: keys and values of all prompts that are kept warm, and indexes and syntax trees of documents.
PROMPT_STORE_BYTES: Mapping[str, int] = {"cpu": 2**28, "cuda": 2**30}
TEXT_STORE_BYTES = 2**26
# Tokens before the window that sliding layers keep on a card: an edit further up encodes the whole prompt again.
EDIT_TOKENS = 1_024
_SMALL_VALUES = 2**28
_DRIVER = Path("/proc/driver/nvidia/version")


def pick_device(name: str) -> torch.device:
    """Returns the device of a user's choice.

    Args:
        name: `auto` (an NVIDIA card if there is one), `cpu`, `cuda` or `cuda:N`.

    Raises:
        CheckpointError: the name is unknown or no such device is there.
    """
    other = _other_card()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and not other else "cpu"
        if name == "cpu" and (other or _DRIVER.exists()):
            _log.warning("the model runs on the processor, although there is a card: %s", other or _missing_cuda())
    if other and name.partition(":")[0] in ("cuda", "mps"):
        raise CheckpointError(f"device {name!r} cannot be used: {other}; use auto or cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise CheckpointError(f"device {name!r} is not known; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CheckpointError(f"device {name!r} is not there ({_missing_cuda()}); or use auto or cpu")
    return device


def use_device(device: torch.device) -> None:
    """Makes a card the calling thread's current one: kernels are launched there, wherever their tensors are."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _other_card() -> str:
    """Returns why a card that this torch could use is not used; empty where there is none but NVIDIA's.

    Kernels are written, tuned and planned for NVIDIA's cards. On others some would not build and none was ever checked,
    and plain PyTorch without them runs a mixture of experts slower than a processor with enough memory does.
    """
    if torch.version.hip is not None:
        return "this torch is built for AMD's cards, for which there are no kernels yet"
    if torch.backends.mps.is_available():
        return "there are no kernels for Apple's cards yet"
    return ""


def _missing_cuda() -> str:
    """Returns why there are no more CUDA devices than there are, and what to do."""
    if count := torch.cuda.device_count():
        return f"the last of {count} is cuda:{count - 1}"
    if torch.version.cuda is None:
        return "this torch is built without CUDA: install one with it"
    try:
        driver = _DRIVER.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except OSError:
        return "no NVIDIA driver is loaded: install it"
    return f"torch for CUDA {torch.version.cuda} cannot use it: update the driver, which says {driver!r}"


def free_memory(device: torch.device) -> int:
    """Returns the bytes available to a new model: free memory of a card, available memory of the system."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    # Here and not above: loading a model on a card needs no psutil.
    import psutil

    return psutil.virtual_memory().available


def weight_dtype(device: torch.device) -> torch.dtype:
    """Returns the format of weights: bfloat16 on CUDA, on a processor the one it multiplies faster (`processor`)."""
    return torch.bfloat16 if device.type == "cuda" else product_speeds(os.environ).dtype


def product_kinds(*, num_values: int, in_four_bits: bool) -> ProductKinds:
    """Returns what products of a model read on this processor; see `ProductSpeeds.products`.

    Args:
        num_values: of the model. One that is not small keeps each weight once, in 8 bits, whatever is faster: its time
            is that of reading its weights, and memory is what its user has least of.
        in_four_bits: whether weights were stored in 4 bits.
    """
    if num_values > _SMALL_VALUES:
        return COMPACT
    return product_speeds(os.environ).products(in_four_bits=in_four_bits)


def is_small(num_values: int, device: torch.device) -> bool:
    """Whether a model is small enough to spend memory on speed: on a processor, with up to 268 million weights.

    Such a model keeps a second copy of its matrices in the order the processor reads them, and its quantised weights
    are expanded once (docs/decisions/0012 and 0013).
    """
    return device.type == "cpu" and num_values <= _SMALL_VALUES


def limit_threads(environ: Mapping[str, str]) -> int:
    """Sets how many processor threads torch uses: half the cores, at least one; `OMP_NUM_THREADS` overrides that.

    The engine runs beside an editor, compilers and tests. A small model splits its work into thousands of pieces a
    second, and at the end of each all threads wait for the slowest: with a thread on every core, a busy neighbour
    more than doubles the time of an answer (docs/decisions/0004).

    Args:
        environ: the process's environment.

    Returns:
        The number of threads.
    """
    if "OMP_NUM_THREADS" not in environ:
        # macOS cannot say which cores a process may use.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // 2))
    return torch.get_num_threads()
