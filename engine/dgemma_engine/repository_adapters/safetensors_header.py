"""Whether a safetensors file is whole, by its header: a path in, a reason out. Standard library only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_LENGTH_BYTES = 8


def why_damaged(path: Path) -> str:
    """Returns why a file is damaged, as words that follow its name; empty where it is whole."""
    try:
        with path.open("rb") as file:
            num_bytes = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if length > num_bytes - _LENGTH_BYTES:
                return "is truncated, or no safetensors file"
            header: dict[str, Any] = json.loads(file.read(length))
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return "is no safetensors file"
    return "" if _LENGTH_BYTES + length + max(ends, default=0) == num_bytes else "is truncated"
