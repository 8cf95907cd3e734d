"""Whether kernels can be built and started here at all, found out with the smallest one there is.

Triton builds a launcher in C for each kernel, at the kernel's first start.
"""

from __future__ import annotations

import torch

from dgemma_kernels.launch.kernel_launch import launch
from dgemma_kernels.ops._compiler_check import write_one


def require_compiler(device: torch.device) -> None:
    """Builds and runs a kernel.

    Args:
        device: where.

    Raises:
        RuntimeError: it cannot be built, or did not write what it should; the message is one line.
    """
    out_1 = torch.zeros(1, dtype=torch.int32, device=device)
    try:
        launch(write_one, (1,), out_1)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:  # whatever the compiler, the linker or the driver raise
        first_line = str(error).strip().partition("\n")[0]
        raise RuntimeError(f"{type(error).__name__}: {first_line}") from error
    if out_1.item() != 1:
        raise RuntimeError("a kernel ran and wrote nothing")
