"""How fast the weights of a card's model are read from the page cache, on one core, up to the copy to the card.

Writes shards with the experts of some layers of DiffusionGemma 26B in int4, reads them once so that they are cached,
then reads them as a load does, matrix by matrix and joined by layer. `staged`: through page-locked buffers, from which
the card copies by itself; joining is the card's work too, and both are left out. `mapped`: out of mapped files, joined
in main memory, and copied once more into a buffer, as the driver does with memory that is not page-locked. Rates are
bytes by seconds of processor time, since other processes share the machine. `seconds_of_26b` is the whole model's size
at the staged rate, without the time of a disk.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies
sys.path.insert(0, str(Path(__file__).parents[1] / "gpu"))

import record
import torch
from dgemma_engine.backends.memory_plan import memory_plan
from dgemma_engine.checkpoint import tensor_files
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.checkpoint.quantization_scheme import StoredScheme
from dgemma_engine.checkpoint.quantized_layouts import read_matrix, stored_headers
from dgemma_engine.checkpoint.safetensors_reader import CheckpointReader
from dgemma_engine.checkpoint.tensor_files import Staging
from dgemma_engine.quantization.quantized_tensor import Encoding, QuantisedTensor
from dgemma_engine.tools.conversion.shard_writer import MOST_SHARD_BYTES, ShardPlan, ShardWriter
from gpu_model import released

TARGET_BYTES_PER_S, MOST_OPENS = 2e9, 60
_DTYPES = {"I32": torch.int32, "BF16": torch.bfloat16, "I64": torch.int64}


def main() -> int:
    """Measures and writes `read_weights.json`; returns 1 where the reader is slower than its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--layers", type=int, default=3, help="layers written, 405 MB each (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, help="where the shards are written and removed; default: a temporary one"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    whole_bytes = sum(
        item.num_bytes
        for item in memory_plan(released(), weight_format=Format.INT4, context_tokens=1_024, device_type="cuda").weights
    )
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        written = write_layers(folder, args.layers)
        staged = measured(lambda: read_staged(folder, args.layers), args.rounds)
        mapped = measured(lambda: read_mapped(folder, args.layers), args.rounds)
        opens = count_opens(folder, args.layers)
        num_tensors = len(list(CheckpointReader(folder)))
    per_s = written / statistics.median(staged)
    result = {
        "bytes": written,
        "tensors": num_tensors,
        "opens": opens,
        "threads": 1,
        "rounds": args.rounds,
        "staged_gb_per_s": round(per_s / 1e9, 2),
        "mapped_gb_per_s": round(written / statistics.median(mapped) / 1e9, 2),
        "target_gb_per_s": TARGET_BYTES_PER_S / 1e9,
        "bytes_of_26b_int4": whole_bytes,
        "opens_of_26b_int4": -(-whole_bytes // MOST_SHARD_BYTES),
        "most_opens": MOST_OPENS,
        "seconds_of_26b": round(whole_bytes / per_s, 1),
    }
    record.write("read_weights", result, args.out)
    return 0 if per_s >= TARGET_BYTES_PER_S else 1


def projections(num_layers: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields the stacks of experts' matrices that some layers have: the beginning of their names, a matrix's shape."""
    config = released()
    inner, hidden = config.moe_intermediate_size, config.hidden_size
    for layer in range(num_layers):
        yield f"layers.{layer}.gate_proj", (inner, hidden)
        yield f"layers.{layer}.up_proj", (inner, hidden)
        yield f"layers.{layer}.down_proj", (hidden, inner)


def matrices(num_layers: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields name and shape of each expert's matrices."""
    for name, shape in projections(num_layers):
        yield from ((f"{name}.{expert}", shape) for expert in range(released().num_experts))


def write_layers(folder: Path, num_layers: int) -> int:
    """Writes the tensors as `dgemma-engine quantize --format int4` does, and returns their size in bytes."""
    listed = [
        (*entry, shape) for name, shape in matrices(num_layers) for entry in stored_headers(name, Encoding.INT4, shape)
    ]
    with ShardWriter(folder, ShardPlan((key, header) for key, header, _ in listed)) as writer:
        for key, header, shape in listed:
            is_shape = header.dtype == "I64"
            writer.write(
                key, torch.tensor(shape) if is_shape else torch.ones(header.shape, dtype=_DTYPES[header.dtype])
            )
    return sum(header.num_bytes for _, header, _ in listed)


def read(reader: CheckpointReader, num_layers: int, take: Callable[[QuantisedTensor], None]) -> None:
    """Reads every stack of matrices and hands it over."""
    scheme = StoredScheme(group_sizes={Encoding.INT4: 64})
    num_experts = released().num_experts
    for name, shape in projections(num_layers):
        parts = [read_matrix(reader, f"{name}.{expert}", shape, scheme) for expert in range(num_experts)]
        take(QuantisedTensor.concatenate(parts))
    reader.release()


def read_staged(folder: Path, num_layers: int) -> None:
    """Reads through the buffers; the device takes no memory, copies nothing and joins nothing."""
    read(CheckpointReader(folder, staging=Staging(torch.device("meta"))), num_layers, lambda _whole: None)


def read_mapped(folder: Path, num_layers: int) -> None:
    """Reads mapped files, joins, and copies the result piece by piece."""
    buffer = torch.empty(tensor_files.BUFFER_BYTES, dtype=torch.uint8)

    def copy(whole: QuantisedTensor) -> None:
        for tensor in (whole.codes, whole.scales):
            for piece in tensor.reshape(-1).view(torch.uint8).split(len(buffer)):
                buffer[: len(piece)].copy_(piece)

    read(CheckpointReader(folder), num_layers, copy)


def count_opens(folder: Path, num_layers: int) -> int:
    """Returns how often files are opened for all tensors."""
    with patch.object(tensor_files.os, "open", side_effect=tensor_files.os.open) as opened:
        read_staged(folder, num_layers)
    return opened.call_count


def measured(work: Callable[[], object], rounds: int) -> list[float]:
    """Returns the seconds of processor time of each round after the first, which fills the page cache."""
    times: list[float] = []
    for _ in range(rounds + 1):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return times[1:]


if __name__ == "__main__":
    sys.exit(main())
