"""Planned memory equals the memory then held, to the byte where it can be counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.backends import select
from dgemma_engine.backends.memory_plan import GIB, memory_plan, stored_plan
from dgemma_engine.checkpoint.loader import Residence, load_model
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.cli import main
from dgemma_engine.errors import CheckpointError
from dgemma_engine.infill import engine as engine_module
from dgemma_engine.infill.engine import Engine
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.devices import EDIT_TOKENS, PROMPT_STORE_BYTES
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.kv_rows import prompt_bytes
from dgemma_engine.model.ops import Ops
from dgemma_engine.quantization.quantized_linear import PackedExperts, PackedLinear
from dgemma_engine.tools.conversion.converter import quantise_folder

CPU = torch.device("cpu")

RELEASED: dict[str, Any] = {
    "vocab_size": 262144, "hidden_size": 2816, "intermediate_size": 2112, "moe_intermediate_size": 704,
    "num_experts": 128, "top_k_experts": 8, "num_hidden_layers": 30, "num_attention_heads": 16,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5, "num_key_value_heads": 8,
    "num_global_key_value_heads": 2, "head_dim": 256, "global_head_dim": 512, "sliding_window": 1024,
    "max_position_embeddings": 262144, "eos_token_id": 1,
    "rope_parameters": {
        "full_attention": {"rope_theta": 1e6, "partial_rotary_factor": 0.25, "rope_type": "proportional"},
        "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
    },
}  # fmt: skip


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A folder with the released checkpoint's configuration and nothing else."""
    values = {"model_type": "diffusion_gemma", "canvas_length": 256, "text_config": RELEASED}
    (tmp_path / "config.json").write_text(json.dumps(values))
    return tmp_path


@pytest.mark.parametrize("form", [None, *Format])
def test_planned_weights_are_what_a_loaded_model_holds(
    make_checkpoint: Callable[..., Any], tmp_path: Path, form: Format | None
) -> None:
    folder = make_checkpoint(hidden_size=72, moe_intermediate_size=40).folder
    if form is not None:
        quantise_folder(folder, tmp_path / form, form, report=lambda _percent: None)
        folder = tmp_path / form
    model = load_model(folder, Ops.reference(), device=CPU, dtype=torch.bfloat16, residence=Residence.PACKED)
    held = sum(tensor.nbytes for tensor in model.state_dict().values())
    for module in model.modules():
        if isinstance(module, PackedLinear):
            held += module.packed.num_bytes
        elif isinstance(module, PackedExperts):
            held += module.gate_up.num_bytes + module.down.num_bytes
    plan = memory_plan(ModelConfig.load(folder), weight_format=form, context_tokens=100, device_type="cpu")
    assert sum(item.num_bytes for item in plan.weights) == held


def test_planned_prompt_is_what_the_cache_holds(make_checkpoint: Callable[..., Any]) -> None:
    config = ModelConfig.load(make_checkpoint().folder)
    cache = PromptCache(config, capacity=100, dtype=torch.bfloat16, device=CPU)
    plan = memory_plan(config, weight_format=None, context_tokens=100, device_type="cpu")
    assert plan.prompt.num_bytes == cache.num_bytes


def test_the_released_model_fits_no_card_plain_and_a_24_gib_card_in_4_bits(
    released: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(released), "--memory", "24"]) == 1
    said = capsys.readouterr()
    assert "the model needs 49" in said.err and "such a card has 24.0 GiB free" in said.err
    assert main(["plan", str(released), "--format", "int4", "--memory", "24"]) == 0
    said = capsys.readouterr().out
    assert "weights: experts (int4)" in said and "keys and values of 8,192 tokens" in said
    assert said.endswith("it fits\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--context", "16"], "a context of 16 tokens cannot be planned: it must be more than the canvas of 256"),
        (["--context", "300000"], "at most 262144"),
        (["--device", "tpu"], "device 'tpu' is not known"),
    ],
)
def test_wrong_options_are_named(
    released: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(released), *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        *(("--memory", value, "GiB, more than 0 and at most 1,000,000") for value in ("0", "inf", "nan", "banana")),
        *(("--context", value, "a whole number of at least 1") for value in ("-5", "0", "1.5", "banana")),
    ],
)
def test_number_out_of_range_and_text_are_refused_alike(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", "tiny", option, value])
    assert ended.value.code == 2
    assert f"argument {option}: '{value}' must be" in (error := capsys.readouterr().err) and message in error


def test_weights_of_four_bits_are_not_to_be_quantised_again(
    make_checkpoint: Callable[..., Any], tmp_path: Path
) -> None:
    folder = make_checkpoint(hidden_size=64, moe_intermediate_size=64).folder
    quantise_folder(folder, tmp_path / "int4", Format.INT4, report=lambda _percent: None)
    config, options = ModelConfig.load(folder), {"context_tokens": 100, "device_type": "cuda"}
    stored = stored_plan(tmp_path / "int4", dtype=torch.bfloat16, **options)
    for plan in (stored, memory_plan(config, weight_format=Format.NVFP4, **options)):
        with pytest.raises(CheckpointError, match="free: choose a model with fewer parameters or bits, lower the"):
            plan.require(0, "cpu")
    for plan in (
        stored_plan(folder, dtype=torch.bfloat16, **options),
        memory_plan(config, weight_format=None, **options),
    ):
        with pytest.raises(CheckpointError, match="free: make it smaller with dgemma-engine quantize, lower the"):
            plan.require(0, "cpu")


def test_refusal_names_needed_and_free_memory(make_checkpoint: Callable[..., Any]) -> None:
    config = ModelConfig.load(make_checkpoint().folder)
    plan = memory_plan(config, weight_format=Format.INT8, context_tokens=100, device_type="cuda")
    plan.require(plan.total_bytes, "cuda:0")
    with pytest.raises(CheckpointError, match=r"needs 1\.\d GiB .* cuda:0 has 0\.5 GiB free: make it smaller with"):
        plan.require(GIB // 2, "cuda:0")


@pytest.mark.parametrize("form", [None, *Format])
def test_plan_by_files_equals_plan_by_format(
    make_checkpoint: Callable[..., Any], tmp_path: Path, form: Format | None
) -> None:
    folder = make_checkpoint(hidden_size=64, moe_intermediate_size=64).folder
    if form is not None:
        quantise_folder(folder, tmp_path / form, form, report=lambda _percent: None)
        folder = tmp_path / form
    of_files = stored_plan(folder, context_tokens=100, device_type="cuda", dtype=torch.bfloat16)
    of_format = memory_plan(ModelConfig.load(folder), weight_format=form, context_tokens=100, device_type="cuda")
    # Files also hold shapes, and one scale for a whole matrix where memory holds one for each row.
    assert sum(item.num_bytes for item in of_files.weights) == pytest.approx(
        sum(item.num_bytes for item in of_format.weights), rel=0.03
    )
    assert of_files.expansion.num_bytes == of_format.expansion.num_bytes == 0
    assert of_files.workspace == of_format.workspace


@pytest.mark.parametrize("context_tokens", [8_192, 32_768])
def test_released_model_in_4_bits_is_planned_below_18_gib_with_everything_counted(
    released: Path, context_tokens: int
) -> None:
    options: Any = {"weight_format": Format.INT4, "context_tokens": context_tokens, "device_type": "cuda"}
    plan = memory_plan(ModelConfig.load(released), **options)
    assert plan.total_bytes <= 18 * GIB
    counted = {item.name for item in plan.items}
    assert counted >= {"other prompts that are kept warm", "captured steps", "left to a desktop"}
    kept = plan.prompt.num_bytes + plan.others[0].num_bytes
    assert kept >= PROMPT_STORE_BYTES["cuda"], "the store's bound holds for all prompts together"


def test_planned_prompt_of_a_card_is_what_its_cache_holds(make_checkpoint: Callable[..., Any]) -> None:
    config = ModelConfig.load(make_checkpoint().folder)
    sizes: Any = {"capacity": 6_000, "dtype": torch.bfloat16, "device": CPU}
    cache = PromptCache(config, **sizes, edit_tokens=EDIT_TOKENS)
    plan = prompt_bytes(config, 6_000, torch.bfloat16, edit_tokens=EDIT_TOKENS)
    assert plan == cache.num_bytes < PromptCache(config, **sizes).num_bytes


def test_a_card_that_is_too_small_is_refused_before_a_weight_is_read(
    make_checkpoint: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "pick_device", lambda _name: torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _device: None)
    monkeypatch.setattr(select, "free_memory", lambda _device: GIB // 2)
    monkeypatch.setattr(select, "load_model", lambda *_args, **_kwargs: pytest.fail("weights were read"))
    with pytest.raises(CheckpointError, match=r"the model needs 1\.\d GiB .*, cuda:0 has 0\.5 GiB free: make it"):
        Engine.load(make_checkpoint().folder, device="auto", report=lambda _percent, _message: None)


def test_a_processor_without_the_memory_is_refused_before_a_weight_is_read(
    make_checkpoint: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "free_memory", lambda _device: GIB // 4)
    monkeypatch.setattr(select, "load_model", lambda *_args, **_kwargs: pytest.fail("weights were read"))
    with pytest.raises(CheckpointError, match=r"the model needs 0\.\d GiB .*, cpu has 0\.2 GiB free: make it smaller"):
        Engine.load(make_checkpoint().folder, device="cpu", report=lambda _percent, _message: None)


def test_card_is_selected_before_anything_is_loaded(
    make_checkpoint: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = list[str]()
    monkeypatch.setattr(engine_module, "pick_device", lambda _name: torch.device("cuda:1"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: taken.append(str(device)))

    def ask(device: torch.device) -> int:
        assert taken == ["cuda:1"], "the card is queried before it is selected"
        return 0

    monkeypatch.setattr(select, "free_memory", ask)
    with pytest.raises(CheckpointError, match="cuda:1 has 0"):
        Engine.load(make_checkpoint().folder, device="cuda:1", report=lambda _percent, _message: None)
