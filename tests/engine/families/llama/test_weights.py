"""Llama and Qwen2 checkpoints that cannot be run: each ends in one sentence that names what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.model.ops import Ops
from safetensors.torch import load_file, save_file

from tests.gguf_files import write_gguf
from tests.llama_checkpoints import LlamaCheckpoint, make_llama, make_qwen2, write_llama_gguf


@pytest.fixture
def checkpoint(tmp_path: Path) -> LlamaCheckpoint:
    return make_llama(tmp_path, num_hidden_layers=1)


@pytest.fixture
def qwen2(tmp_path: Path) -> LlamaCheckpoint:
    return make_qwen2(tmp_path, num_hidden_layers=1)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_llama(path, Ops.reference(), device=torch.device("cpu"), dtype=torch.float32)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("value", "keys", "message"),
    [
        ("diffusion_gemma", ["model_type"], "model_type='diffusion_gemma' is not supported; it must be 'llama'"),
        (["StableDiffcoderForCausalLM"], ["architectures"], "architectures=['StableDiffcoderForCausalLM'] is not"),
        ("gelu", ["hidden_act"], "hidden_act='gelu' is not supported"),
        (True, ["attention_bias"], "attention_bias=True is not supported"),
        (True, ["mlp_bias"], "mlp_bias=True is not supported"),
        ("llama3", ["rope_parameters", "rope_type"], "rope_type='llama3' is not supported"),
        (None, ["hidden_size"], "hidden_size must be a whole number, not None"),
        ("64", ["vocab_size"], "vocab_size must be a whole number, not '64'"),
        (True, ["num_hidden_layers"], "num_hidden_layers must be a whole number, not True"),
        (0, ["num_hidden_layers"], "num_hidden_layers=0 must be at least 1"),
        (2**30, ["num_hidden_layers"], "num_hidden_layers=1073741824 must be at most 4096"),
        ("2", ["num_key_value_heads"], "num_key_value_heads must be a whole number, not '2'"),
        ("16", ["head_dim"], "head_dim must be a whole number, not '16'"),
        (None, ["max_position_embeddings"], "max_position_embeddings must be a whole number, not None"),
        (None, ["rms_norm_eps"], "rms_norm_eps must be a number, not None"),
        (float("nan"), ["rms_norm_eps"], "rms_norm_eps=nan must be from 0 to 1"),
        (float("nan"), ["rope_parameters", "rope_theta"], "rope_theta=nan must be from 1"),
        ("default", ["rope_parameters"], "rope_parameters must be an object, not 'default'"),
        ([1], ["bos_token_id"], "bos_token_id must be a whole number, not [1]"),
        (9999, ["bos_token_id"], "bos_token_id=9999 must be at most"),
        ([2, "x"], ["eos_token_id"], "eos_token_id must be a whole number, not 'x'"),
        (3, ["num_key_value_heads"], "self.num_attention_heads=4 must be a multiple of self.num_key_value_heads=3"),
        (15, ["head_dim"], "self.head_size=15 must be even"),
        (128, ["intermediate_size"], "model.layers.0.mlp.up_proj.weight has shape [96, 64], against its config"),
        (2, ["num_hidden_layers"], "lacks model.layers.1.self_attn.q_proj.weight; get the whole model again"),
    ],
)  # fmt: skip
def test_bad_configuration_is_reported_in_one_sentence(
    checkpoint: LlamaCheckpoint, edit_json: Callable[..., None], value: object, keys: list[str], message: str
) -> None:
    edit_json(checkpoint.folder / "config.json", value, *keys)
    assert message in refusal(checkpoint.folder)


@pytest.mark.parametrize(
    ("value", "keys", "message"),
    [
        (True, ["use_sliding_window"], "use_sliding_window=True is not supported; it must be False"),
        (["Qwen2ForSequenceClassification"], ["architectures"], "it must be ['Qwen2ForCausalLM']"),
        (["LlamaForCausalLM"], ["architectures"], "architectures=['LlamaForCausalLM'] is not supported"),
        ("yarn", ["rope_parameters", "rope_type"], "rope_type='yarn' is not supported; it must be 'default'"),
        ("llama", ["model_type"], "architectures=['Qwen2ForCausalLM'] is not supported"),
        ("qwen3", ["model_type"], "model_type='qwen3' is not supported"),
    ],
)
def test_bad_configuration_of_a_qwen2_is_reported_in_one_sentence(
    qwen2: LlamaCheckpoint, edit_json: Callable[..., None], value: object, keys: list[str], message: str
) -> None:
    edit_json(qwen2.folder / "config.json", value, *keys)
    assert message in refusal(qwen2.folder)


def test_scaled_positions_of_an_older_configuration_are_refused(
    qwen2: LlamaCheckpoint, edit_json: Callable[..., None]
) -> None:
    """Before `rope_parameters` a configuration had `rope_scaling`, whose kind was called `type`."""
    edit_json(qwen2.folder / "config.json", None, "rope_parameters")
    edit_json(qwen2.folder / "config.json", {"type": "yarn", "factor": 4.0}, "rope_scaling")
    assert "rope_type='yarn' is not supported" in refusal(qwen2.folder)


@pytest.mark.parametrize("kind", ["q", "k", "v"])
@pytest.mark.parametrize("container", ["folder", "gguf"])
def test_qwen2_without_a_bias_is_reported_in_one_sentence(qwen2: LlamaCheckpoint, container: str, kind: str) -> None:
    name = f"model.layers.0.self_attn.{kind}_proj.bias"
    if container == "folder":
        tensors = load_file(qwen2.folder / "model.safetensors")
        del tensors[name]
        save_file(tensors, qwen2.folder / "model.safetensors")
    else:
        getattr(qwen2.reference.model.layers[0].self_attn, f"{kind}_proj").bias = None
        write_llama_gguf(qwen2.gguf, qwen2.reference)
    assert f"lacks {name}; get the whole model again" in refusal(getattr(qwen2, container))


@pytest.mark.parametrize("content", [None, "", "[]", "{", "\x00"])
def test_damaged_configuration_is_reported_in_one_sentence(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert str(tmp_path / "config.json") in refusal(tmp_path)


def test_tensor_that_would_be_left_unread_is_reported_in_one_sentence(checkpoint: LlamaCheckpoint) -> None:
    tensors = load_file(checkpoint.folder / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(tensors, checkpoint.folder / "model.safetensors")
    load_llama(checkpoint.folder, Ops.reference(), device=torch.device("cpu"), dtype=torch.float32)
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.ones(64)
    save_file(tensors, checkpoint.folder / "model.safetensors")
    assert "holds model.layers.0.self_attn.q_proj.bias, which a plain Llama does not have" in refusal(checkpoint.folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"general__architecture": "qwen3"}, "is a 'qwen3' model, not one of llama, qwen2"),
        ({"qwen2__expert_count": 8}, "a mixture of experts cannot be run"),
        ({"qwen2__rope__scaling__type": "yarn"}, "scaled rotary positions cannot be run"),
        ({"qwen2__attention__head_count": 2**30}, "qwen2.attention.head_count=1073741824 must be at most"),
    ],
)
def test_bad_metadata_of_a_qwen2_is_reported_in_one_sentence(
    qwen2: LlamaCheckpoint, changed: dict[str, Any], message: str
) -> None:
    assert message in refusal(write_llama_gguf(qwen2.gguf, qwen2.reference, **changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"llama__expert_count": 8}, "a mixture of experts cannot be run"),
        ({"llama__rope__scaling__type": "yarn"}, "scaled rotary positions cannot be run"),
        ({"llama__rope__dimension_count": 8}, "heads that rotate in part cannot be run"),
        ({"llama__block_count": "many"}, "llama.block_count must be int, not str"),
        ({"llama__attention__head_count_kv": 3}, "must be a multiple of"),
        ({"llama__block_count": 2_000_000}, "llama.block_count=2000000 must be at most"),
        ({"llama__attention__head_count": 2**30}, "llama.attention.head_count=1073741824 must be at most"),
        ({"tokenizer__ggml__bos_token_id": 9999}, "tokenizer.ggml.bos_token_id=9999 must be at most"),
        ({"llama__rope__freq_base": float("nan")}, "llama.rope.freq_base=nan must be from 1"),
        ({"llama__feed_forward_length": 32}, "has shape [96, 64], against its configuration"),
        ({"llama__block_count": 2}, "lacks model.layers.1.self_attn.q_proj.weight"),
    ],
)
def test_bad_metadata_is_reported_in_one_sentence(
    checkpoint: LlamaCheckpoint, changed: dict[str, Any], message: str
) -> None:
    assert message in refusal(write_llama_gguf(checkpoint.gguf, checkpoint.reference, **changed))


def test_file_without_an_embedding_is_reported_in_one_sentence(tmp_path: Path) -> None:
    assert "lacks token_embd.weight" in refusal(write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama"}, {}))


@pytest.mark.parametrize("make", [make_llama, make_qwen2])
def test_configurations_of_both_containers_agree(tmp_path: Path, make: Callable[..., LlamaCheckpoint]) -> None:
    from dgemma_engine.checkpoint.gguf_file import GgufFile

    checkpoint = make(tmp_path, num_hidden_layers=1)
    of_gguf, of_folder = LlamaConfig.from_gguf(GgufFile(checkpoint.gguf)), LlamaConfig.load(checkpoint.folder)
    assert of_gguf.rms_norm_eps == pytest.approx(of_folder.rms_norm_eps)
    assert [getattr(of_gguf, name) for name in NAMES] == [getattr(of_folder, name) for name in NAMES]


NAMES = [name for name in LlamaConfig.__dataclass_fields__ if name != "rms_norm_eps"]
