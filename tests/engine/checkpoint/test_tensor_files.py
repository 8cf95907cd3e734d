"""Reading a model through two small buffers gives what mapping it gives; damaged files are named either way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint import tensor_files
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.checkpoint.safetensors_reader import CheckpointReader
from dgemma_engine.checkpoint.tensor_files import MappedFile, StagedFile, Staging
from dgemma_engine.checkpoint.tensors import CheckpointWeights
from dgemma_engine.errors import CheckpointError
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.tools.conversion.converter import quantise_folder
from safetensors.torch import save_file

CPU = torch.device("cpu")
TYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


def tensors() -> dict[str, torch.Tensor]:
    """Returns a tensor of each type, of odd sizes so that few are aligned in a buffer, and ones of 0 to 2 numbers."""
    made = {str(kind): torch.arange(number + 37).reshape(-1).to(kind) for number, kind in enumerate(TYPES)}
    made |= {"none": torch.zeros(0, 3), "one": torch.tensor(2.5), "two": torch.tensor([3, 4])}
    return made | {"matrix": torch.arange(7 * 13, dtype=torch.float32).reshape(7, 13)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_file(tensors(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def same(got: torch.Tensor, expected: torch.Tensor) -> bool:
    bits = (one.contiguous().view(-1).view(torch.uint8) if one.numel() else one for one in (got, expected))
    return got.dtype == expected.dtype and got.shape == expected.shape and torch.equal(*bits)


@pytest.mark.parametrize("buffer_bytes", [16, 48, 4_096])
def test_tensors_are_those_of_a_mapped_file(path: Path, buffer_bytes: int) -> None:
    staged, mapped = StagedFile(path, Staging(CPU, buffer_bytes=buffer_bytes)), MappedFile(path)
    assert set(staged.keys()) == set(mapped.keys()) == set(tensors())
    for key, expected in tensors().items():
        assert staged.header(key) == mapped.header(key)
        assert same(staged.tensor(key), expected) and same(mapped.tensor(key), expected), key
    for rows in (slice(2, 5), slice(6, 99), slice(3, 3)):
        assert same(staged.tensor("matrix", rows), mapped.tensor("matrix", rows))
    staged.close()
    mapped.close()


@pytest.mark.parametrize("buffer_bytes", [16, 4_096])
def test_filling_casts(path: Path, buffer_bytes: int) -> None:
    file = StagedFile(path, Staging(CPU, buffer_bytes=buffer_bytes))
    target = torch.full((7, 13), -1.0, dtype=torch.bfloat16)
    file.fill(target, "matrix")
    assert torch.equal(target, tensors()["matrix"].bfloat16())
    columns = torch.full((13, 7), -1.0).t()
    file.fill(columns, "matrix")
    assert torch.equal(columns, tensors()["matrix"])


def test_a_buffer_is_filled_again_only_after_its_copies(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card copies asynchronously: a buffer must not be overwritten before it is claimed again."""
    log, late = list[tuple[str, int]](), dict[int, list[Callable[[], object]]]()
    staging = Staging(CPU, buffer_bytes=64)
    buffers = {id(one): number for number, one in enumerate((staging._own, staging._other))}  # type: ignore[reportPrivateUsage]

    def release(buffer: Any) -> None:
        log.append(("release", buffers[id(buffer)]))

    def claim(buffer: Any) -> None:
        log.append(("claim", buffers[id(buffer)]))
        for copy in late.pop(buffers[id(buffer)], []):
            copy()

    def copied_late(staging: Staging, file: int, offset: int, target: torch.Tensor, dtype: torch.dtype) -> None:
        flat, item, done = target.view(-1), dtype.itemsize, 0
        while done < len(flat):
            count = min(len(flat) - done, 64 // item)
            piece = staging._read(file, offset + done * item, count * item).view(dtype)  # type: ignore[reportPrivateUsage]
            part = flat[done : done + count]
            own = buffers[id(staging._own)]  # type: ignore[reportPrivateUsage]
            late.setdefault(own, []).append(lambda part=part, piece=piece: part.copy_(piece))
            done += count

    monkeypatch.setattr(tensor_files._Buffer, "release", release)
    monkeypatch.setattr(tensor_files._Buffer, "claim", claim)
    monkeypatch.setattr(Staging, "copy", copied_late)
    got = {key: StagedFile(path, staging).tensor(key) for key in tensors()}
    for copies in late.values():
        for copy in copies:
            copy()
    assert all(same(got[key], expected) for key, expected in tensors().items())
    assert len(log) > 10
    assert all(
        pair == (("release", i % 2), ("claim", 1 - i % 2))
        for i, pair in enumerate(zip(log[::2], log[1::2], strict=True))
    )


@pytest.mark.parametrize("form", [None, *Format])
def test_parameters_are_those_of_a_mapped_folder(
    make_checkpoint: Callable[..., Any], tmp_path: Path, form: Format | None
) -> None:
    folder = make_checkpoint(hidden_size=64, moe_intermediate_size=64, max_shard_size="200KB").folder
    if form is not None:
        quantise_folder(folder, tmp_path / form, form, report=lambda _percent: None)
        folder = tmp_path / form
    config = ModelConfig.load(folder)
    with torch.device("meta"):
        shapes = {name: one.shape for name, one in DiffusionGemma(config, Ops.reference()).state_dict().items()}
    with (
        CheckpointWeights(folder, config) as mapped,
        CheckpointWeights(folder, config, staging=Staging(CPU, buffer_bytes=1_024)) as staged,
    ):
        for source in mapped.sources:
            shape = shapes[source.parameter]
            assert staged.can_stay_packed(source) == mapped.can_stay_packed(source)
            if mapped.can_stay_packed(source):
                ours, theirs = staged.packed(source, shape), mapped.packed(source, shape)
                assert same(ours.codes, theirs.codes) and same(ours.scales, theirs.scales)
            ours, theirs = torch.empty(shape), torch.empty(shape)
            staged.fill(ours, source)
            mapped.fill(theirs, source)
            assert torch.equal(ours, theirs), source.parameter


def test_each_shard_is_opened_once(make_checkpoint: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(max_shard_size="100KB").folder
    opened, real = list[Path](), tensor_files.os.open

    def counting(path: Path, flags: int) -> int:
        opened.append(path)
        return real(path, flags)

    monkeypatch.setattr(tensor_files.os, "open", counting)
    reader = CheckpointReader(folder, staging=Staging(CPU, buffer_bytes=1_024))
    for _ in range(2):
        for key in reader:
            reader.tensor(key)
    reader.release()
    assert len(opened) == len(set(opened)) == len(list(folder.glob("*.safetensors"))) > 2


def damaged(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def headed(header: object) -> Callable[[bytes], bytes]:
    text = json.dumps(header).encode()
    return lambda _content: len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-1],
        lambda content: content[:4],
        lambda content: content[:100],
        lambda _content: b"",
        lambda content: b"\xff" * 8 + content[8:],
        headed([]),
        headed({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}),
        headed({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}),
        headed({"a": {"dtype": "F32", "shape": [1]}}),
        lambda _content: (200_000).to_bytes(8, "little") + b"[" * 200_000,
    ],
)
def test_damaged_files_are_named(path: Path, change: Callable[[bytes], bytes]) -> None:
    damaged(path, change)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: truncated or damaged .*; download it again"):
        StagedFile(path, Staging(CPU, buffer_bytes=1_024))


def test_file_that_shrinks_while_it_is_read_is_named(path: Path) -> None:
    file = StagedFile(path, Staging(CPU, buffer_bytes=1_024))
    damaged(path, lambda content: content[:200])
    for key in ("matrix", "two"):
        with pytest.raises(CheckpointError, match=r"truncated or damaged \(the file ends too early\)"):
            file.tensor(key)


def test_missing_file_is_named(tmp_path: Path) -> None:
    for kind in (MappedFile, lambda path: StagedFile(path, Staging(CPU, buffer_bytes=16))):
        with pytest.raises(CheckpointError, match="missing; download the whole model folder again"):
            kind(tmp_path / "model.safetensors")


@pytest.mark.parametrize("size", [0, -16, 24])
def test_wrong_buffer_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"buffer_bytes={size} must be"):
        Staging(CPU, buffer_bytes=size)
