"""Loading every layout of a checkpoint, and refusing what cannot be loaded with a line that says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint import loader, safetensors_reader, tensor_files
from dgemma_engine.checkpoint.loader import load_model, save_checkpoint
from dgemma_engine.checkpoint.safetensors_reader import CheckpointReader
from dgemma_engine.errors import CheckpointError
from dgemma_engine.model.config import ModelConfig
from dgemma_engine.model.ops import Ops
from dgemma_engine.quantization.quantized_linear import Scratch
from safetensors.torch import load_file, save_file

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return load_model(folder, Ops.reference(), device=CPU, dtype=dtype)


@pytest.fixture(scope="module")
def original(make_checkpoint: Callable[..., Any]) -> Any:
    return make_checkpoint(seed=11)


@pytest.fixture
def folder(original: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original.folder, tmp_path / "model"))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_load_reads_every_float_format(dtype: torch.dtype, make_checkpoint: Callable[..., Any]) -> None:
    checkpoint = make_checkpoint(seed=12, dtype=dtype)
    embedding = load(checkpoint.folder).embed_tokens.weight
    assert embedding.dtype == torch.float32
    assert torch.equal(embedding, checkpoint.reference.model.decoder.embed_tokens.weight)


def test_load_reads_shards(make_checkpoint: Callable[..., Any]) -> None:
    whole, shards = make_checkpoint(seed=13), make_checkpoint(seed=13, max_shard_size="100KB")
    assert len(list(shards.folder.glob("*.safetensors"))) > 2
    expected = load(whole.folder).state_dict()
    for name, tensor in load(shards.folder).state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_load_reports_progress(folder: Path) -> None:
    seen: list[int] = []
    load_model(folder, Ops.reference(), device=CPU, dtype=torch.float32, report=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 100


def test_both_layer_scalars_are_read(original: Any) -> None:
    model = load(original.folder)
    reference = original.reference.model
    for ours, decoder, encoder in zip(
        model.layers, reference.decoder.layers, reference.encoder.language_model.layers, strict=True
    ):
        assert torch.equal(ours.layer_scalar, decoder.layer_scalar)
        assert torch.equal(ours.encoder_layer_scalar, encoder.layer_scalar)
        assert not torch.equal(ours.layer_scalar, ours.encoder_layer_scalar)


def test_rotary_frequencies_are_exact_in_a_bfloat16_model(folder: Path) -> None:
    from dgemma_engine.model.config import LayerKind

    positions = torch.tensor([[1000]])
    exact = load(folder).rotary(positions, torch.float32)[LayerKind.SLIDING].cos
    cast = load(folder, torch.bfloat16).rotary(positions, torch.float32)[LayerKind.SLIDING].cos
    assert torch.equal(exact, cast)


def test_saved_checkpoint_loads_in_transformers_with_the_same_logits(original: Any, tmp_path: Path) -> None:
    from transformers.models.diffusion_gemma import DiffusionGemmaForBlockDiffusion

    save_checkpoint(load(original.folder), tmp_path / "ours", dtype=torch.float32)
    again, info = DiffusionGemmaForBlockDiffusion.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not [key for key in info["missing_keys"] if "vision" not in key]
    prompt, canvas = torch.arange(1, 20)[None], torch.arange(30, 46)[None]
    with torch.no_grad():
        assert torch.equal(
            again.eval()(input_ids=prompt, decoder_input_ids=canvas).logits,
            original.reference(input_ids=prompt, decoder_input_ids=canvas).logits,
        )


def test_full_disk_keeps_the_old_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dgemma_engine.checkpoint import loader
    from safetensors import SafetensorError

    model, before = load(folder), (folder / WEIGHTS).read_bytes()

    def fail(_tensors: object, path: Path, **_options: object) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(loader, "save_file", fail)
    with pytest.raises(OSError, match=r"model\.safetensors cannot be written: No space left"):
        save_checkpoint(model, folder)
    assert (folder / WEIGHTS).read_bytes() == before
    assert not list(folder.glob(".*"))


KEY = "model.decoder.layers.0.self_attn.q_proj.weight"


def test_missing_file(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: missing; download"):
        load(folder)


def test_missing_config(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json here"):
        load(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 1000, -100])
def test_truncated_weights(folder: Path, kept: int) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: truncated or damaged"):
        load(folder)


def test_missing_key(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.__delitem__(KEY))
    with pytest.raises(CheckpointError, match=f"{KEY}: missing from the weights"):
        load(folder)


def test_wrong_dtype(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({KEY: tensors[KEY].to(torch.int8)}))
    with pytest.raises(CheckpointError, match=f"{KEY}: stored as I8, only BF16, F16, F32"):
        load(folder)


def test_quantised_weights_are_named_as_such(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({KEY + "_scale": torch.ones(3)}))
    with pytest.raises(CheckpointError, match="this checkpoint is quantised"):
        load(folder)


def test_unread_key_is_refused(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({"model.decoder.layers.9.norm.weight": torch.ones(3)}))
    with pytest.raises(CheckpointError, match=r"layers\.9\.norm\.weight: not part of the model"):
        load(folder)


EMBEDDING = "model.decoder.embed_tokens.weight"


def test_output_matrix_that_differs_from_the_embedding_is_refused(folder: Path) -> None:
    """A copy of the embedding is ignored; a matrix that differs is refused, since it would be left unread."""
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDING].clone()}))
    load(folder)
    rewrite(folder, lambda tensors: tensors["lm_head.weight"][-1].add_(1))
    with pytest.raises(
        CheckpointError, match=r"lm_head\.weight: is an output matrix of its own in the weights, and the"
    ):
        load(folder)
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[EMBEDDING][1:].clone()}))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight: is an output matrix of its own"):
        load(folder)


def test_config_that_contradicts_the_weights_is_refused(folder: Path, edit_json: Callable[..., None]) -> None:
    edit_json(folder / "config.json", 128, "text_config", "intermediate_size")
    with pytest.raises(CheckpointError, match=r"shape \[96, 64\] in the weights, \[128, 64\] by config\.json"):
        load(folder)


def test_shard_index_that_names_the_wrong_file_is_refused(make_checkpoint: Callable[..., Any], tmp_path: Path) -> None:
    shards = make_checkpoint(seed=13, max_shard_size="100KB").folder
    folder = Path(shutil.copytree(shards, tmp_path / "model"))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    names = sorted(set(index["weight_map"].values()))
    index["weight_map"][KEY] = next(name for name in names if name != index["weight_map"][KEY])
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=f"lacks {KEY}, which"):
        load(folder)


@pytest.mark.parametrize(
    ("value", "keys", "message"),
    [
        ("gemma4", ["model_type"], "model_type is 'gemma4', only 'diffusion_gemma'"),
        (None, ["text_config"], "text_config is missing"),
        (None, ["text_config", "vocab_size"], "vocab_size is missing"),
        (0, ["text_config", "num_experts"], "num_experts=0 must be at least 1"),
        (9, ["text_config", "top_k_experts"], "top_k_experts=9 must not exceed self.num_experts=4"),
        (3, ["text_config", "num_key_value_heads"], "num_attention_heads=4 must be a multiple of the 3"),
        ("relu", ["text_config", "hidden_activation"], "hidden_activation='relu' is not supported"),
        (True, ["text_config", "attention_bias"], "attention_bias=True is not supported"),
        (False, ["text_config", "tie_word_embeddings"], "tie_word_embeddings=False is not supported"),
        ("all", ["text_config", "use_bidirectional_attention"], "use_bidirectional_attention='all' is not supported"),
        (["linear_attention"] * 3, ["text_config", "layer_types"], "'linear_attention' is not a valid LayerKind"),
        (7, ["text_config", "num_hidden_layers"], "layer_types has 3 entries, num_hidden_layers is 7"),
        ({"1": {"head_dim": 8}}, ["text_config", "per_layer_config"], "per_layer_config must be the same for all"),
        ("x", ["text_config"], "text_config must be an object"),
        ("8", ["text_config", "num_experts"], "num_experts must be a whole number, not '8'"),
        (2**40, ["text_config", "hidden_size"], "hidden_size=1099511627776 must be at most"),
        (7, ["text_config", "layer_types"], "layer_types: 'int' object is not iterable"),
        (float("nan"), ["text_config", "rms_norm_eps"], "rms_norm_eps=nan must be from 0"),
        ("default", ["text_config", "rope_parameters"], "rope_parameters must be an object"),
        ([1], ["text_config", "bos_token_id"], "bos_token_id must be a whole number"),
        ([1], ["text_config", "per_layer_config"], "per_layer_config must be an object"),
        ("int8", ["quantization_config"], "quantization_config must be an object, not 'int8'"),
        (
            {"quant_method": "compressed-tensors", "config_groups": [1]},
            ["quantization_config"],
            "config_groups must be",
        ),
        ({"2": {"sliding_window": 8}}, ["text_config", "per_layer_config"], "per_layer_config sets sliding_window"),
    ],
)
def test_bad_config_is_named(
    folder: Path, edit_json: Callable[..., None], value: object, keys: list[str], message: str
) -> None:
    edit_json(folder / "config.json", value, *keys)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_damaged_config(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(folder)


def test_released_configuration_is_read() -> None:
    """25.25 billion parameters, as many as `transformers` builds from the same file."""
    from dgemma_engine.model.config import LayerKind

    text = {
        "vocab_size": 262144, "hidden_size": 2816, "intermediate_size": 2112, "moe_intermediate_size": 704,
        "num_experts": 128, "top_k_experts": 8, "num_hidden_layers": 30, "num_attention_heads": 16,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5, "num_key_value_heads": 8,
        "num_global_key_value_heads": 2, "head_dim": 256, "global_head_dim": 512, "sliding_window": 1024,
        "hidden_activation": "gelu_pytorch_tanh", "eos_token_id": 1,
        "rope_parameters": {
            "full_attention": {"rope_theta": 1e6, "partial_rotary_factor": 0.25, "rope_type": "proportional"},
            "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
        },
    }  # fmt: skip
    config = ModelConfig.from_hf({"model_type": "diffusion_gemma", "text_config": text})
    assert config.head_dim == {LayerKind.SLIDING: 256, LayerKind.FULL: 512}
    assert config.num_kv_heads == {LayerKind.SLIDING: 8, LayerKind.FULL: 2}
    from dgemma_engine.model.transformer import DiffusionGemma

    with torch.device("meta"):
        model = DiffusionGemma(config, Ops.reference())
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e9, 2) == 25.25


def test_mapped_files_are_closed_after_a_bounded_amount(
    make_checkpoint: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint(seed=13, max_shard_size="100KB").folder
    opened, safe_open = list[Path](), tensor_files.safe_open

    def counting(path: Path, framework: str) -> Any:
        opened.append(path)
        return safe_open(path, framework)

    monkeypatch.setattr(tensor_files, "safe_open", counting)
    seldom = load(folder).state_dict()
    assert len(opened) == len(set(opened))
    monkeypatch.setattr(safetensors_reader, "MOST_MAPPED_BYTES", 1)
    often = load(folder).state_dict()
    assert len(opened) > 3 * len(set(opened))
    assert all(torch.equal(seldom[name], tensor) for name, tensor in often.items())


def test_weights_of_a_card_go_through_staging_buffers(original: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(original.folder).state_dict()
    asked = list[torch.device]()

    def staging(device: torch.device) -> tensor_files.Staging:
        asked.append(device)
        return tensor_files.Staging(CPU, buffer_bytes=1_024)

    class Card:
        """A device of type cuda, whose tensors are allocated on the processor."""

        type = "cuda"

    card: Any = Card()
    empty = torch.empty

    def on_processor(*sizes: Any, **options: Any) -> torch.Tensor:
        return empty(*sizes, **(options | {"device": CPU} if options.get("device") is card else options))

    monkeypatch.setattr(loader, "Staging", staging)
    monkeypatch.setattr(torch, "empty", on_processor)
    monkeypatch.setattr(loader, "Scratch", lambda _device, dtype: Scratch(CPU, dtype))
    got = load_model(original.folder, Ops.reference(), device=card, dtype=torch.float32).state_dict()
    assert asked == [card]
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.float8_e4m3fn, torch.bool])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (4, 3, 2)])
def test_reader_returns_what_the_library_does(tmp_path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensors = {name: torch.randint(0, 2, shape).to(dtype) for name in ("a", "b")}
    save_file(tensors, tmp_path / WEIGHTS)
    with CheckpointReader(tmp_path) as reader:
        assert sorted(reader) == ["a", "b"]
        for name, tensor in tensors.items():
            found = reader.tensor(name)
            assert (found.dtype, found.shape) == (dtype, tensor.shape) == (dtype, torch.Size(reader.header(name).shape))
            assert torch.equal(found.float(), tensor.float())
            if shape:
                part = slice(1, 3)
                assert torch.equal(reader.tensor(name, part).float(), tensor[part].float())


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [1]}},
        {"a": 7},
        [],
    ],
)
def test_inconsistent_header_is_damage(tmp_path: Path, header: Any) -> None:
    raw = json.dumps(header).encode()
    (tmp_path / WEIGHTS).write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(8))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: truncated or damaged") as caught:
        CheckpointReader(tmp_path)
    assert "\n" not in str(caught.value)


def test_file_that_the_system_will_not_map_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(folder).state_dict()

    def refuse(path: Path, _framework: str) -> Any:
        raise RuntimeError(f"unable to mmap 27201105992 bytes from file <{path}>: Cannot allocate memory (12)")

    monkeypatch.setattr(tensor_files, "safe_open", refuse)
    found = load(folder).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
