"""Published checkpoints of full size, by their key lists: each is mapped and planned whole, and no weight is read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from dgemma_engine.backends.memory_plan import GIB
from dgemma_engine.checkpoint.gguf_file import GgufFile
from dgemma_engine.checkpoint.key_map import ParameterSource
from dgemma_engine.checkpoint.loader import open_weights
from dgemma_engine.checkpoint.quantized_layouts import IGNORED_SUFFIXES
from dgemma_engine.checkpoint.safetensors_reader import CheckpointReader
from dgemma_engine.checkpoint.tensors import CheckpointWeights
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.diffusion_gemma import DiffusionGemmaFamily
from dgemma_engine.families.family import PlanOptions
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma

from tests.published.key_lists import HERE, LAYOUTS, num_bytes, read_list, text_of
from tests.published.sparse_files import has_sparse_files, write_folder, write_gguf_file

CPU = torch.device("cpu")
FOLDERS = sorted(layout for layout in LAYOUTS if not layout.startswith("gguf"))
FILES = sorted(layout for layout in LAYOUTS if layout.startswith("gguf"))
# From the published headers: number of tensors by type, and size in gigabytes.
COUNTS = {
    "bf16": {"BF16": 1_047},
    "nvfp4_compressed_tensors": {"BF16": 897, "F32": 23_220, "F8_E4M3": 11_610, "U8": 11_610},
    "gguf_q4_k_m": {"F32": 423, "Q4_K": 194, "Q5_0": 33, "Q8_0": 28, "Q6_K": 14},
}
GIGABYTES = {"bf16": 51.6476, "fp8_dynamic": 27.1977, "nvfp4_modelopt": 18.8181, "w4a16": 17.22}
# Size of the whole file, whose header holds a vocabulary.
Q8_0_BYTES, MOST_HEADER_BYTES = 26_878_831_328, 2**24


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sparse")
    if not has_sparse_files(folder):
        pytest.skip("published layouts are not opened: this file system has no sparse files")
    return folder


def checkpoint(place: Path, layout: str) -> Path:
    """The full-size checkpoint of a layout, written once."""
    path = place / (f"{layout}.gguf" if layout in FILES else layout)
    if not path.exists():
        (write_gguf_file(path, read_list(layout)) if layout in FILES else write_folder(path, layout, read_list(layout)))
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_committed_list_is_what_the_script_writes(layout: str) -> None:
    assert (HERE / f"{layout}.json").read_text(encoding="utf-8") == text_of(layout)
    assert read_list(layout) == LAYOUTS[layout].tensors()


@pytest.mark.parametrize("layout", COUNTS)
def test_counts_are_those_of_the_published_headers(layout: str) -> None:
    assert Counter(dtype for dtype, _ in read_list(layout).values()) == COUNTS[layout]


@pytest.mark.parametrize("layout", GIGABYTES)
def test_sizes_are_those_of_the_published_headers(layout: str) -> None:
    total = sum(num_bytes(*stored) for stored in read_list(layout).values())
    digits = len(str(GIGABYTES[layout]).partition(".")[2])
    assert round(total / 1e9, digits) == GIGABYTES[layout]


def test_size_of_the_published_q8_0_leaves_room_for_its_header() -> None:
    total = sum(num_bytes(*stored) for stored in read_list("gguf_q8_0").values())
    assert 0 < Q8_0_BYTES - total < MOST_HEADER_BYTES
    # 35,391 tensors of the decoder and 386 others, by the index of the checkpoint.
    names = read_list("w4a16")
    assert (len(names), sum(name.startswith("model.decoder.") for name in names)) == (35_777, 35_391)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes reading a weight an error."""

    def fail(*_arguments: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(CheckpointReader, "tensor", fail)
    read = GgufFile.tensor_bytes

    def small(file: GgufFile, name: str, *bounds: int) -> bytearray:
        assert name == "rope_freqs.weight", "a weight was read"
        return read(file, name, *bounds)

    monkeypatch.setattr(GgufFile, "tensor_bytes", small)


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_full_size_checkpoint_is_planned_as_it_is_stored(layout: str, place: Path) -> None:
    path, family = checkpoint(place, layout), DiffusionGemmaFamily()
    facts = read_facts(path)
    assert family.recognises(facts)
    plan = family.plan(facts, PlanOptions(device=CPU, weight_format=None, context_tokens=None))
    of_text = {name: stored for name, stored in read_list(layout).items() if "vision" not in name}
    stored_bytes = sum(num_bytes(*stored) for stored in of_text.values())
    weights = sum(item.num_bytes for item in plan.weights)
    plain = sum(num_bytes(dtype, shape) for dtype, shape in of_text.values() if dtype in ("BF16", "F32"))
    # Plain weights take twice their size in float32, an embedding in few bits up to four times; 4-bit codes with even
    # steps 10 bits in place of 9.
    assert 0.98 * stored_bytes <= weights <= 1.12 * stored_bytes + plain + 3 * GIB


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("layout", FOLDERS)
def test_every_key_of_a_folder_belongs_to_one_parameter(layout: str, place: Path) -> None:
    config, stored = open_weights(checkpoint(place, layout))
    assert isinstance(stored, CheckpointWeights)
    with torch.device("meta"):
        state = DiffusionGemma(config, Ops.reference()).state_dict()
    with stored as weights:
        read = [key for source in weights.sources for key in keys_of(weights, source, state[source.parameter].shape)]
        assert len(read) == len(set(read))
        ours = {key for key in weights.reader if "vision" not in key}
        assert ours - set(read) == {key for key in ours if key.rpartition(".")[2] in IGNORED_SUFFIXES}


def keys_of(weights: CheckpointWeights, source: ParameterSource, shape: torch.Size) -> list[str]:
    """The keys that a parameter is read from; fails where one is missing or of another shape."""
    if not weights.can_stay_packed(source):
        for key, rows in zip(source.keys, source.rows, strict=True):
            weights.require_plain(key, (rows, *shape[1:]))
        return list(source.keys)
    suffixes = {"weight", "weight_packed", "weight_scale", "weight_scale_2", "weight_global_scale", "weight_shape"}
    keys = [key for name in source.matrices for key in map(f"{name}.{{}}".format, suffixes) if key in weights.reader]
    values = 0
    for key in keys:
        header, suffix = weights.reader.header(key), key.rpartition(".")[2]
        if suffix in ("weight", "weight_packed"):
            values += header.num_bytes * (2 if header.dtype in ("U8", "I32") else 1)
    assert values == shape.numel()
    num_parts = {"F8_E4M3": 2, "U8": 3, "I32": 3}
    first = next(key for key in keys if key.rpartition(".")[2] in ("weight", "weight_packed"))
    whole = num_parts[weights.reader.header(first).dtype]
    assert len(keys) == whole * len(source.matrices)
    return keys


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("layout", FILES)
def test_every_tensor_of_a_file_belongs_to_one_parameter(layout: str, place: Path) -> None:
    """A tensor that is missing or left over is refused when the file is opened."""
    config, stored = open_weights(checkpoint(place, layout))
    with torch.device("meta"):
        state = DiffusionGemma(config, Ops.reference()).state_dict()
    with stored as weights:
        num_values = sum(state[source.parameter].numel() for source in weights.sources)
        kept = sum(weights.packed_bytes(source) or 0 for source in weights.sources)
    shapes = {name: stored for name, stored in read_list(layout).items() if name != "rope_freqs.weight"}
    assert num_values == sum(torch.Size(shape).numel() for _, shape in shapes.values())
    assert (kept == 0) == (layout == "gguf_bf16")
