"""`dgemma-engine plan` for each family, before anything is fetched: plans equal the memory of a loaded model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.cli import main
from dgemma_engine.families.checkpoint_facts import CheckpointFacts, read_facts
from dgemma_engine.families.family import PlanOptions
from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.families.llama.memory_plan import llama_plan
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.families.registry import family_of
from dgemma_engine.infill.store_limits import StoreLimits
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model_store.catalogue import CATALOGUE
from dgemma_engine.model_store.entry import Entry
from dgemma_engine.model_store.hub_entries import HUB_ENTRIES
from dgemma_kernels.packing.cpu import PackedMatrix
from dgemma_kernels.packing.few_bits import COMPACT, DENSE, ProductKinds, RowWeights

from tests.llama_checkpoints import make_llama, make_qwen2

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


@pytest.mark.parametrize("has_head", [False, True])
def test_planned_llama_is_what_a_model_holds(has_head: bool) -> None:
    config = LlamaConfig.from_hf(
        dict(CATALOGUE["small"].config) | {"vocab_size": 300, "hidden_size": 36, "num_hidden_layers": 2}
    )
    model = LlamaModel(config, Ops.reference(), has_head=has_head)
    plan = llama_plan(config, has_head=has_head, context_tokens=100, device_type="cuda", dtype=torch.float32)
    assert sum(item.num_bytes for item in plan.weights) == sum(each.nbytes for each in model.parameters())
    assert plan.prompt.num_bytes == PromptCache(config, capacity=100, dtype=torch.float32, device=CPU).num_bytes
    assert ("weights: output matrix" in {item.name for item in plan.weights}) == has_head


def test_small_is_planned_before_it_is_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "small", "--memory", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ("small is not there yet; this is planned from its dimensions; run: dgemma-engine pull small")
    # 134.5 million weights in bfloat16.
    weights = [int(line.split()[-2].replace(",", "")) for line in lines if line.startswith("weights: ")]
    assert sum(weights) == pytest.approx(134.5e6 * 2 / 2**20, abs=2)
    assert any(line.startswith("keys and values of 8,192 tokens") for line in lines)
    assert [line.split() for line in lines if line.startswith("number format")] == [["number", "format", "bfloat16"]]
    assert lines[-1] == "it fits"


def test_model_that_does_not_fit_is_refused_with_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "small", "--memory", "0.5"]) == 1
    said = capsys.readouterr().err
    assert (
        "the model needs 1.9 GiB (weights 0.3, prompt 0.2, workspace 0.1, the rest 1.4), such a card has 0.5 GiB"
        in said
    )
    assert "choose a model with fewer parameters" in said
    assert "quantize" not in said, "a Llama cannot be quantised"


def test_diffusiongemma_is_planned_before_it_is_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    """In the format of its published weights, or in one that is named."""
    assert main(["plan", "diffusiongemma", "--memory", "24"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("diffusiongemma is not there yet; this is planned from its dimensions; run: ")
    experts = next(line for line in out.splitlines() if line.startswith("weights: experts (e2m1)"))
    # Three matrices for each expert of each layer, 4 bits and a scale of 8 bits for every 16.
    assert float(experts.split()[-2]) == pytest.approx(30 * 128 * 3 * 2_816 * 704 * 4.5 / 8 / 2**30, rel=0.01)
    assert main(["plan", "diffusiongemma", "--memory", "8"]) == 1
    assert "such a card has 8.0 GiB free" in capsys.readouterr().err
    assert main(["plan", "diffusiongemma", "--memory", "24", "--format", "plain"]) == 1
    assert main(["plan", "diffusiongemma", "--memory", "80", "--format", "plain", "--context", "2000"]) == 0
    assert "keys and values of 2,000 tokens" in capsys.readouterr().out


def test_tiny_is_planned_on_a_processor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "tiny", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "weights: experts" in out
    assert "weights in the processor's order" in out
    assert "free on cpu" in out
    assert out.endswith("it fits\n")


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["smal"], 2, "smal: no such model; did you mean small?"),
        (["small", "--format", "int8"], 1, "small: a llama model cannot be quantised; leave --format out"),
        (["small", "--context", "10"], 1, "it must be more than the canvas of 64 and at most 8192"),
    ],
)
def test_wrong_option_is_reported_in_one_sentence(
    argv: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *argv, "--memory", "8"]) == code
    assert message in capsys.readouterr().err


def test_llama_folder_needs_its_configuration_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = dict(CATALOGUE["small"].config) | {"tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["plan", str(tmp_path), "--memory", "8"]) == 0
    assert "weights: output matrix" in capsys.readouterr().out


# Loads a GGUF file as the engine does; prints the bytes that the process grew by, and what was planned for weights.
MEASURE = """
import ctypes, gc, sys
from pathlib import Path
import psutil, torch
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.family import LoadOptions, PlanOptions
from dgemma_engine.families.registry import family_of
from dgemma_engine.model import devices

def held():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_full_info().uss

torch.set_num_threads(1)
devices._SMALL_VALUES = int(sys.argv[2])
device, facts = torch.device("cpu"), read_facts(Path(sys.argv[1]))
family = family_of(facts)
plan = family.plan(facts, PlanOptions(device=device, weight_format=None, context_tokens=None))
devices.product_kinds(num_values=0, in_four_bits=False)
before = held()
options = LoadOptions(device=device, ops=None, prompt_tokens=64, report=lambda _percent: None)
model = family.load_model(facts, options)
print(held() - before, sum(item.num_bytes for item in plan.weights))
"""


def grown_and_planned(path: Path, *, small_values: int) -> tuple[int, int]:
    """Returns growth and plan in bytes; a model of more than `small_values` values does not count as small."""
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(small_values)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    grown, planned = map(int, ran.stdout.split())
    return grown, planned


def has_eight_bits() -> bool:
    return PackedMatrix(torch.eye(16), int8=True).few_bits.input_levels > 0


@pytest.mark.skipif(sys.platform != "linux", reason="memory of its own is measured on Linux only")
def test_planned_weights_are_what_a_process_grows_by(tmp_path: Path) -> None:
    path = make_llama(
        tmp_path, vocab_size=8_192, hidden_size=576, intermediate_size=1_536, num_hidden_layers=8,
        num_attention_heads=9, num_key_value_heads=3,
    ).gguf  # fmt: skip
    grown, planned = grown_and_planned(path, small_values=2**28)
    # In addition to weights: TorchScript, oneDNN's primitives, and gaps that the C allocator keeps.
    assert 0.9 * planned < grown < 1.1 * planned + 24 * 2**20, (grown / 2**20, planned / 2**20)


@pytest.mark.skipif(sys.platform != "linux", reason="memory of its own is measured on Linux only")
@pytest.mark.skipif(not has_eight_bits(), reason="this processor has no exact products in 8 bits")
@pytest.mark.parametrize("tied", [True, False])
def test_planned_weights_of_a_compact_model_are_what_a_process_grows_by(tmp_path: Path, tied: bool) -> None:
    path = make_qwen2(
        tmp_path, vocab_size=16_384, hidden_size=768, intermediate_size=3_072, num_hidden_layers=6,
        num_attention_heads=12, num_key_value_heads=2, tie_word_embeddings=tied,
    ).gguf  # fmt: skip
    grown, planned = grown_and_planned(path, small_values=0)
    assert 0.9 * planned < grown < 1.1 * planned + 24 * 2**20, (grown / 2**20, planned / 2**20)
    assert planned < 0.7 * grown_and_planned(path, small_values=2**28)[1]


@pytest.mark.parametrize("has_head", [True, False])
def test_compact_model_is_planned_with_each_weight_once(has_head: bool) -> None:
    config = LlamaConfig.from_hf(dict(CATALOGUE["small"].config))
    asked: list[int] = []

    def items(kinds: ProductKinds, device_type: str = "cpu") -> dict[str, int]:
        def products(num_values: int) -> ProductKinds:
            asked.append(num_values)
            return kinds

        plan = llama_plan(
            config, has_head=has_head, context_tokens=100, device_type=device_type, dtype=torch.bfloat16,
            products=products, four_bit_values=10**9,
        )  # fmt: skip
        return {item.name.removeprefix("weights: "): item.num_bytes for item in plan.weights}

    dense, compact = items(DENSE), items(COMPACT)
    halves = {"mlp", "embedding", "output matrix"}
    assert compact == {name: size // 2 if name in halves else size for name, size in dense.items()}
    num_values = 576 * (30 * (2 * (576 + 192) + 3 * 1_536 + 2) + 1 + 49_152 * (1 + has_head))
    assert asked == [num_values] * 2
    items(COMPACT, "cuda")
    assert len(asked) == 2, "for a card no products are chosen"


@pytest.mark.parametrize("device_type", ["cpu", "cuda"])
def test_canvas_adapter_is_planned_with_its_output_matrix(device_type: str) -> None:
    config = LlamaConfig.from_hf(dict(CATALOGUE["small"].config))

    def items(rank: int) -> dict[str, int]:
        plan = llama_plan(
            config, has_head=False, context_tokens=100, device_type=device_type, dtype=torch.bfloat16, adapter_rank=rank
        )
        return {item.name: item.num_bytes for item in plan.weights}

    per_layer = 8 * (3 * (576 + 960) + (576 + 576) + 2 * (576 + 2 * 1_536) + (1_536 + 576))
    assert items(8)["weights: canvas adapter"] == 2 * 30 * per_layer
    assert items(8)["weights: output matrix"] == items(8)["weights: embedding"]
    assert ("weights: output matrix" in items(0)) == (device_type == "cpu")


def test_second_copies_are_planned_in_the_bits_that_they_have() -> None:
    config = LlamaConfig.from_hf(dict(CATALOGUE["small"].config))

    def items(
        row: RowWeights, four_bit_values: int = 0, *, int8_mlp: bool = False, merged_rank: int = 0
    ) -> dict[str, int]:
        plan = llama_plan(
            config, has_head=False, context_tokens=100, device_type="cpu", dtype=torch.bfloat16,
            products=lambda _num_values: ProductKinds(row=row, int8_mlp=int8_mlp), four_bit_values=four_bit_values,
            merged_rank=merged_rank,
        )  # fmt: skip
        return {item.name: item.num_bytes for item in plan.weights}

    copies = "weights: copies for single tokens"
    assert copies not in items(RowWeights.DENSE)
    num_values = 576 * (30 * (960 + 576 + 3 * 1_536) + 49_152)
    for int8_mlp in (False, True):
        assert items(RowWeights.INT8, 10**9, int8_mlp=int8_mlp)[copies] == num_values
        assert items(RowWeights.INT4, int8_mlp=int8_mlp)[copies] == num_values
        # Half a byte each, and two numbers for each group of 32.
        assert items(RowWeights.INT4, 10**9, int8_mlp=int8_mlp)[copies] == num_values * (1 / 2 + 4 / 32)
    # Beside a base in 4 bits the factors of a merged adapter, in 8 bits, ranks padded to 32; else it costs nothing.
    factors = 30 * (64 * (576 + 960) + 32 * (576 + 576) + 64 * (576 + 2 * 1_536) + 32 * (1_536 + 576))
    assert items(RowWeights.INT4, 10**9, merged_rank=20)[copies] - items(RowWeights.INT4, 10**9)[copies] == factors
    assert items(RowWeights.INT4, merged_rank=20) == items(RowWeights.INT4)
    assert items(RowWeights.INT8, 10**9, merged_rank=20) == items(RowWeights.INT8, 10**9)
    mlp = 576 * 30 * 3 * 1_536
    assert (
        items(RowWeights.INT8)["weights: mlp"] == 2 * items(RowWeights.INT8, int8_mlp=True)["weights: mlp"] == 2 * mlp
    )


def test_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(CATALOGUE["small"].config)))
    assert main(["plan", "~/model", "--memory", "8"]) == 0


@pytest.mark.parametrize("command", [["quantize", "smal", "out", "--format", "int8"], ["export", "smal", "out"]])
def test_misspelt_model_to_convert_names_the_nearest(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    assert "smal: no such model; did you mean small?" in capsys.readouterr().err


def test_misspelt_model_to_calibrate_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "smal", "a.py"]) == 2
    assert "smal: no such model; did you mean small?" in capsys.readouterr().err


def test_catalogue_memory_of_processor_models_is_what_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are those of a processor that multiplies bfloat16 fast, whichever processor runs this test."""
    monkeypatch.setattr("dgemma_engine.families.diffusion_gemma.weight_dtype", lambda _device: torch.bfloat16)
    facts, options = read_facts(model_folder("tiny")), PlanOptions(device=CPU, weight_format=None, context_tokens=None)
    planned = {"tiny": family_of(facts).plan(facts, options)}
    planned["small"] = llama_plan(
        LlamaConfig.from_hf(dict(CATALOGUE["small"].config)), has_head=False, context_tokens=8_192, device_type="cpu",
        dtype=torch.bfloat16, products=lambda _num_values: ProductKinds(row=RowWeights.INT8, int8_mlp=False),
    )  # fmt: skip
    planned["coder"] = llama_plan(
        LlamaConfig.from_hf(dict(CATALOGUE["coder"].config)), has_head=True, context_tokens=8_192, device_type="cpu",
        dtype=torch.bfloat16, products=lambda _num_values: COMPACT,
    )  # fmt: skip
    for name, plan in planned.items():
        assert CATALOGUE[name].memory_bytes == pytest.approx(plan.total_bytes, rel=0.01)
        items = {item.name: item.num_bytes for item in plan.items}
        limits = StoreLimits.of_one_user(CPU)
        assert plan.prompt.num_bytes + items["other prompts that are kept warm"] == limits.prompt_bytes
        assert items["indexes and syntax trees"] == limits.text_bytes


@pytest.mark.parametrize("entry", HUB_ENTRIES, ids=lambda entry: entry.name)
def test_catalogue_memory_and_size_are_those_planned_for_a_card(entry: Entry) -> None:
    facts = CheckpointFacts.of_config(Path(entry.name), entry.config, entry.family)
    form = None if entry.weight_format == "plain" else Format(entry.weight_format)
    options = PlanOptions(device=torch.device("cuda"), weight_format=form, context_tokens=None)
    plan = family_of(facts).plan(facts, options)
    assert entry.memory_bytes == pytest.approx(plan.total_bytes, rel=0.01)
    weights = sum(item.num_bytes for item in plan.weights)
    # The files of DiffusionGemma hold an image encoder too.
    assert entry.num_bytes == pytest.approx(weights, rel=0.07)
