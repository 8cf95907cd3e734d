"""A GGUF header: the values of a good file, and one sentence for every bad one."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
import torch
from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.checkpoint.gguf_quantization import read_tensor
from dgemma_engine.errors import CheckpointError

from tests.gguf_files import F32, f16, f32, text, write_gguf

METADATA = {
    "general.architecture": "llama", "llama.block_count": 2, "llama.rope.freq_base": 1e4, "flag": True, "below": -3,
    "tokenizer.ggml.tokens": ["a", "", "é\n"], "tokenizer.ggml.token_type": [1, 3, -1], "slides": [True, False],
}  # fmt: skip
MATRIX = torch.arange(12.0).view(3, 4)


def write(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "small.gguf", METADATA, {"matrix": f32(MATRIX), "vector": f16(MATRIX[0])})


@pytest.mark.parametrize("version", [2, 3])
def test_reads_metadata_and_tensors(tmp_path: Path, version: int) -> None:
    metadata, tensors = METADATA | {"general.alignment": 64}, {"m": f32(MATRIX), "v": f16(MATRIX[0])}
    path = write_gguf(tmp_path / "a", metadata, tensors, alignment=64, version=version)
    file = GgufFile(path)
    assert file.get("general.architecture", str) == "llama"
    assert file.get("llama.block_count", int) == 2
    assert file.get("llama.rope.freq_base", float) == 1e4
    assert file.get("llama.block_count", float) == 2.0
    assert file.get("flag", bool) is True
    assert file.get("below", int) == -3
    assert file.get("absent", int, 7) == 7
    assert file.strings("tokenizer.ggml.tokens") == ["a", "", "é\n"]
    assert file.integers("tokenizer.ggml.token_type") == [1, 3, -1]
    assert file.booleans("slides") == [True, False]
    assert file.strings("absent") == file.integers("absent") == file.booleans("absent") == []
    assert "flag" in file
    assert "absent" not in file
    assert file.tensors["m"].shape == (3, 4)
    assert read_tensor(file, "m").equal(MATRIX)
    assert read_tensor(file, "v", dtype=torch.bfloat16).equal(MATRIX[0].bfloat16())


def test_tensors_outlive_the_file(tmp_path: Path) -> None:
    file = GgufFile(write(tmp_path))
    matrix = read_tensor(file, "matrix")
    del file
    matrix += 1
    assert matrix.equal(MATRIX + 1)
    assert read_tensor(GgufFile(tmp_path / "small.gguf"), "matrix").equal(MATRIX)


def test_every_truncation_ends_in_one_sentence(tmp_path: Path) -> None:
    whole = write(tmp_path).read_bytes()
    path = tmp_path / "cut.gguf"
    # What stands after the last value is padding.
    for size in range(len(whole) - 24):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"cut\.gguf: (truncated|is not a GGUF|cannot be mapped)"):
            GgufFile(path)


def test_every_changed_byte_is_read_or_refused(tmp_path: Path) -> None:
    whole = bytearray(write(tmp_path).read_bytes())
    path = tmp_path / "changed.gguf"
    for position in range(len(whole)):
        for value in (0, 0x7F, 0xFF):
            path.write_bytes(whole[:position] + bytes([value]) + whole[position + 1 :])
            try:
                file = GgufFile(path)
                for key in ("tokenizer.ggml.tokens", "flag"):
                    file.strings(key)
                for name in file.tensors:
                    read_tensor(file, name)
            except CheckpointError as error:
                assert str(path) in str(error)


def one_key(kind: int, value: bytes, key: str = "key") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(key) + struct.pack("<I", kind) + value


def one_tensor(kind: int, *shape: int, name: str = "t", count: int = 1, offset: int = 0) -> bytes:
    info = text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return b"GGUF" + struct.pack("<IQQ", 3, count, 0) + info * count + bytes(512)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 a zip file", "is not a GGUF file; name one"),
        (b"", "cannot be mapped"),
        (b"GGUF\x00\x00\x00\x03" + bytes(16), "GGUF version 50331648 cannot be read"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "GGUF version 1 cannot be read"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "truncated"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "truncated"),
        (one_key(8, struct.pack("<Q", 2**64 - 1)), "truncated"),
        (one_key(8, struct.pack("<Q", 2) + b"\xff\xff"), "text that is not UTF-8"),
        (one_key(9, struct.pack("<IQ", 4, 2**62)), "truncated"),
        (one_key(9, struct.pack("<IQ", 8, 2**60)), "truncated"),
        (one_key(9, struct.pack("<IQQ", 8, 1, 2**63)), "truncated"),
        (one_key(9, struct.pack("<IQ", 9, 1) + bytes(40)), "a value of unknown type 9"),
        (one_key(77, bytes(8)), "a value of unknown type 77"),
        (one_tensor(10, 256), "t is stored as Q2_K, which cannot be read; get a file with BF16, F16, F32, IQ4_NL"),
        (one_tensor(4242, 32), "t is stored as type 4242"),
        (one_tensor(F32, *[1] * 5), "t with 5 dimensions"),
        (one_tensor(2, 33), r"t of shape \[33\], which is no whole number of Q4_0 blocks"),
        (one_tensor(F32), r"t of shape \[\]"),
        (one_tensor(F32, 0), r"t of shape \[0\]"),
        (one_tensor(F32, 2**40, 2**40), "truncated"),
        (one_tensor(F32, 1, offset=2**63), "truncated"),
        (one_tensor(F32, 1, count=2), "the tensor t twice"),
        (one_key(4, bytes(4), key="general.alignment"), "general.alignment 0, which must be a multiple of 8"),
    ],
)  # fmt: skip
def test_bad_file_is_reported_in_one_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        GgufFile(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [0, 1])
def test_one_part_of_several_is_reported_in_one_sentence(tmp_path: Path, number: int) -> None:
    """Only the first part holds the model's metadata."""
    metadata = {"split.no": number, "split.count": 2} | (METADATA if number == 0 else {})
    path = write_gguf(tmp_path / "m-00001-of-00002.gguf", metadata, {})
    with pytest.raises(
        CheckpointError, match=r"is one of 2 parts of a model.* join them with llama-gguf-split --merge"
    ):
        GgufFile(path)
    GgufFile(write_gguf(tmp_path / "whole.gguf", METADATA | {"split.count": 1}, {}))


def test_tensor_bytes_are_a_writable_copy_of_a_part(tmp_path: Path) -> None:
    file = GgufFile(write(tmp_path))
    part = file.tensor_bytes("matrix", 4, 12)
    assert bytes(part) == MATRIX.numpy().tobytes()[4:12]
    part[0] = 9
    file.release()
    assert bytes(file.tensor_bytes("matrix")) == MATRIX.numpy().tobytes()


def test_what_is_no_readable_file_is_reported_in_one_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("absent", ".", "pipe"):
        with pytest.raises(CheckpointError, match="cannot be"):
            GgufFile(tmp_path / name)


def test_value_of_another_kind_is_reported_in_one_sentence(tmp_path: Path) -> None:
    file = GgufFile(write(tmp_path))
    with pytest.raises(CheckpointError, match=r"llama\.block_count must be str, not int"):
        file.get("llama.block_count", str)
    with pytest.raises(CheckpointError, match="lacks the key absent; get a complete conversion"):
        file.get("absent", str)
    for key in ("flag", "tokenizer.ggml.token_type"):
        with pytest.raises(CheckpointError, match="is not the array it should be"):
            file.strings(key)
    with pytest.raises(CheckpointError, match="is not the array it should be"):
        file.integers("tokenizer.ggml.tokens")
