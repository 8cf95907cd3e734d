"""Kind, mask and format of masked-diffusion checkpoints, and those that cannot be run: each fault is one sentence."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.errors import CheckpointError, FormatError
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.family import LoadOptions, PlanOptions
from dgemma_engine.families.masked.config import MaskedConfig, kind_of, mask_id_of
from dgemma_engine.families.masked_diffusion import MaskedDiffusionFamily
from dgemma_engine.families.registry import family_of
from dgemma_engine.model.ops import Ops
from safetensors.torch import load_file, save_file

from tests.gguf_files import write_gguf
from tests.masked_checkpoints import BLOCK_KINDS, END, EXPAND, KINDS, MASK, VOCAB_SIZE, edit, make_masked

CPU = torch.device("cpu")
FAMILY = MaskedDiffusionFamily()


def load(folder: Path) -> Any:
    options = LoadOptions(device=CPU, ops=Ops.reference(), prompt_tokens=64, report=lambda _percent: None)
    return FAMILY.load_model(read_facts(folder), options)


def refusal(ask: Callable[[], object]) -> str:
    with pytest.raises((CheckpointError, FormatError)) as caught:
        ask()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_kind_and_mask_are_found_and_no_code_is_run(tmp_path: Path, kind: str) -> None:
    folder = make_masked(tmp_path, kind, num_hidden_layers=1).folder
    # The module that `auto_map` names: importing it ends the test run.
    (folder / "modeling_x.py").write_text("raise SystemExit('code of a checkpoint was run')\n")
    facts = read_facts(folder)
    assert family_of(facts).name == "masked_diffusion"
    assert (kind_of(facts).name, mask_id_of(facts, VOCAB_SIZE)) == (kind, MASK)
    config = load(folder).config
    assert (config.vocab_size, config.max_position_embeddings, config.layer_kinds) == (VOCAB_SIZE, 512, ())
    assert (config.has_qkv_bias, config.has_qk_norm, config.is_shifted) == {
        "open-dcoder": (True, False, True), "a2d-qwen2": (True, False, False), "a2d-qwen3": (False, True, False),
        "a2d-llama": (False, False, False), "dream": (True, False, True), "dreamon": (True, False, True),
        "llada": (False, False, False),
    }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_kind_that_attends_block_by_block_puts_the_suffix_first(tmp_path: Path, kind: str) -> None:
    folder = make_masked(tmp_path, kind, num_hidden_layers=2).folder
    facts = read_facts(folder)
    assert (family_of(facts).name, kind_of(facts).name) == ("masked_diffusion", kind)
    assert mask_id_of(facts, VOCAB_SIZE) == MASK
    config, form = load(folder).config, FAMILY.read_format(facts)
    assert (config.block_tokens, len(config.layer_kinds)) == (BLOCK_KINDS[kind], 2)
    assert (form.suffix_token_id, form.prefix_token_id, form.middle_token_id, form.fill_token_id) == (
        261,
        259,
        262,
        END,
    )
    assert form.suffix_head_tokens == 0 < form.suffix_tokens
    assert form.longest_prompt + config.canvas_length < config.window_tokens == 512
    assert form.prompt_ids(prefix_ids=[1, 2], suffix_ids=[3], bos_token_id=END) == [261, 3, 259, 1, 2, 262]


def test_size_of_a_block_comes_from_the_sidecar(tmp_path: Path) -> None:
    folder = make_masked(tmp_path, "a2d-qwen3-bd3lm", num_hidden_layers=1).folder
    for size in (16, 0, "4"):
        (folder / "family.json").write_text(json.dumps({"family": "masked_diffusion", "block_tokens": size}))
        if size == 16:
            assert load(folder).config.block_tokens == 16
        else:
            said = refusal(lambda: load(folder))
            assert "family.json" in said and "block_tokens" in said


def test_missing_infill_marks_are_reported_in_one_sentence(tmp_path: Path) -> None:
    folder = make_masked(tmp_path, "stable-diffcoder", num_hidden_layers=1).folder
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    edit(folder, "tokenizer.json", added_tokens=[token for token in tokenizer["added_tokens"] if token["id"] != 262])
    said = refusal(lambda: FAMILY.read_format(read_facts(folder)))
    assert "its tokenizer lacks <[fim-suffix]>, <[fim-prefix]>, <[fim-middle]>, which mark a hole" in said


def test_resizing_has_its_tokens_and_its_limit(tmp_path: Path) -> None:
    folder = make_masked(tmp_path, "dreamon", num_hidden_layers=1).folder
    resizing = FAMILY.read_sampler(read_facts(folder), VOCAB_SIZE).resizing
    assert resizing is not None
    assert (resizing.expand_id, resizing.delete_id, resizing.most_free) == (EXPAND, END, 64)
    edit(folder, expand_token_id=258)
    resizing = FAMILY.read_sampler(read_facts(folder), VOCAB_SIZE).resizing
    assert resizing is not None and resizing.expand_id == 258
    assert FAMILY.read_sampler(read_facts(make_masked(tmp_path / "d", "dream").folder), VOCAB_SIZE).resizing is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (END, "expand_token_id=257 is the mask or the token that ends a text; get the model again"),
        (MASK, "expand_token_id=260 is the mask"),
        (VOCAB_SIZE, "expand_token_id=288 must be at most 287"),
        ("<|expand|>", "expand_token_id must be a whole number, not '<|expand|>'"),
    ],
)
def test_invalid_expansion_token_is_reported_in_one_sentence(tmp_path: Path, value: object, message: str) -> None:
    folder = edit(make_masked(tmp_path, "dreamon", num_hidden_layers=1).folder, expand_token_id=value)
    assert message in refusal(lambda: FAMILY.read_sampler(read_facts(folder), VOCAB_SIZE))


def test_missing_expansion_token_is_reported_in_one_sentence(tmp_path: Path) -> None:
    folder = make_masked(tmp_path, "dream", num_hidden_layers=1).folder
    (folder / "family.json").write_text(json.dumps({"family": "masked_diffusion", "kind": "dreamon"}))
    said = refusal(lambda: FAMILY.read_sampler(read_facts(folder), VOCAB_SIZE))
    assert "no file names the token <|expand|>; write its id to family.json as expand_token_id" in said


@pytest.mark.parametrize("kind", KINDS)
def test_window_has_room_for_prompt_canvas_and_suffix(tmp_path: Path, kind: str) -> None:
    facts = read_facts(make_masked(tmp_path, kind, num_hidden_layers=1).folder)
    form, config = FAMILY.read_format(facts), MaskedConfig.of_facts(facts)
    assert form.longest_prompt + config.canvas_length < config.window_tokens == 512
    assert form.suffix_head_tokens == config.canvas_length // 2 == 96
    assert form.begins_with_bos == (kind in ("dream", "dreamon", "llada"))


def test_mask_comes_from_the_sidecar_the_configuration_or_the_tokenizer(tmp_path: Path) -> None:
    folder = make_masked(tmp_path, "a2d-qwen2", num_hidden_layers=1).folder
    (folder / "tokenizer_config.json").write_text(json.dumps({"mask_token": {"content": "<|im_end|>"}}))
    assert mask_id_of(read_facts(folder), VOCAB_SIZE) == 258
    edit(folder, mask_token_id=259)
    assert mask_id_of(read_facts(folder), VOCAB_SIZE) == 259
    (folder / "family.json").write_text(json.dumps({"family": "masked_diffusion", "mask_token_id": 270}))
    assert mask_id_of(read_facts(folder), VOCAB_SIZE) == 270


def test_missing_mask_is_reported_in_one_sentence_before_the_weights_are_read(tmp_path: Path) -> None:
    folder = make_masked(tmp_path, "a2d-qwen3", num_hidden_layers=1).folder
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    edit(folder, "tokenizer.json", added_tokens=[token for token in tokenizer["added_tokens"] if token["id"] != MASK])
    (folder / "model.safetensors").unlink()
    said = refusal(lambda: load(folder))
    assert "names no mask token, neither in config.json nor in its tokenizer; write its id to family.json" in said
    assert '{"family": "masked_diffusion", "kind": "a2d-qwen3", "mask_token_id": ID}' in said


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (66, "mask_token_id=66 is a token of ordinary text"),
        (VOCAB_SIZE, "mask_token_id=288 must be at most 287"),
        (-1, "mask_token_id=-1 must be at least 0"),
        ("<M>", "mask_token_id must be a whole number, not '<M>'"),
    ],
)
def test_invalid_mask_token_is_reported_in_one_sentence(tmp_path: Path, value: object, message: str) -> None:
    folder = edit(make_masked(tmp_path, "dream", num_hidden_layers=1).folder, mask_token_id=value)
    assert message in refusal(lambda: FAMILY.read_sampler(read_facts(folder), VOCAB_SIZE))


def test_head_in_the_file_overrides_the_configuration(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = make_masked(tmp_path, "a2d-qwen2", num_hidden_layers=1)
    edit(checkpoint.folder, tie_word_embeddings=True)
    with caplog.at_level(logging.WARNING):
        model = load(checkpoint.folder)
    [record] = caplog.records
    assert "config.json says the head is the embedding, but there is a head: it is used" in record.getMessage()
    assert torch.equal(model.lm_head.weight, checkpoint.reference.lm_head.weight.to(model.dtype))
    assert not torch.equal(model.lm_head.weight, model.embed_tokens.weight)


def test_missing_head_is_reported_in_one_sentence(tmp_path: Path) -> None:
    folder = make_masked(tmp_path, "llada", num_hidden_layers=1).folder
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.transformer.ff_out.weight"]
    save_file(tensors, folder / "model.safetensors")
    assert "lacks model.transformer.ff_out.weight, and config.json says that the embedding is no head" in refusal(
        lambda: load(folder)
    )


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("llada", {"block_type": "sequential"}, "block_type='sequential' is not supported; it must be 'llama'"),
        ("llada", {"include_qkv_bias": True}, "include_qkv_bias=True is not supported"),
        ("llada", {"activation_type": "gelu"}, "hidden_act='gelu' is not supported"),
        ("dream", {"use_sliding_window": True}, "use_sliding_window=True is not supported"),
        ("a2d-qwen3", {"attention_bias": True}, "attention_bias=True is not supported"),
        ("a2d-qwen3", {"layer_types": ["sliding_attention"]}, "layer_types=['sliding_attention'] is not supported"),
        ("a2d-qwen2", {"max_position_embeddings": 16}, "16 positions are too few to fill a hole"),
        ("dream", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type='yarn' is not supported"),
        ("dream", {"hidden_size": None}, "hidden_size must be a whole number, not None"),
        ("dream", {"intermediate_size": 48}, "mlp.up_proj.weight has shape [96, 64], against its configuration"),
        ("dream", {"num_hidden_layers": 2}, "lacks model.layers.1.self_attn.q_proj.weight"),
        ("a2d-qwen2", {"model_type": "a2d-llama", "architectures": []}, "a model of the kind a2d-llama does not have"),
    ],
)  # fmt: skip
def test_bad_configuration_is_reported_in_one_sentence(
    tmp_path: Path, kind: str, changed: dict[str, Any], message: str
) -> None:
    folder = edit(make_masked(tmp_path, kind, num_hidden_layers=1).folder, **changed)
    assert message in refusal(lambda: load(folder))


@pytest.mark.parametrize(
    ("sidecar", "message"),
    [
        ({"kind": "unheard"}, "family.json names the kind 'unheard'; it must be one of open-dcoder, a2d-qwen2-"),
        ({}, "is a 'qwen3' model, whose kind of masked diffusion is not known; add a `kind` to family.json"),
    ],
)
def test_sidecar_that_names_no_kind_is_reported_in_one_sentence(
    tmp_path: Path, sidecar: dict[str, str], message: str
) -> None:
    folder = edit(make_masked(tmp_path, "a2d-qwen3", num_hidden_layers=1).folder, model_type="qwen3")
    (folder / "family.json").write_text(json.dumps({"family": "masked_diffusion", **sidecar}))
    assert family_of(read_facts(folder)).name == "masked_diffusion"
    assert message in refusal(lambda: load(folder))


def test_sidecar_makes_a_causal_class_a_kind(tmp_path: Path) -> None:
    folder = edit(make_masked(tmp_path, "a2d-qwen3", num_hidden_layers=1).folder, model_type="qwen3")
    (folder / "family.json").write_text(json.dumps({"family": "masked_diffusion", "kind": "a2d-qwen3"}))
    assert load(folder).config.has_qk_norm


def test_gguf_file_is_reported_in_one_sentence(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"general.architecture": "dream"}, {})
    (tmp_path / "m.family.json").write_text('{"family": "masked_diffusion"}')
    assert "GGUF files of masked diffusion cannot be read; choose the model's folder" in refusal(
        lambda: FAMILY.read_tokenizer(read_facts(path))
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"suffix_tokens": 8}, "suffix_tokens must be 0: this model reads the suffix after the canvas"),
        ({"parallel_suffix_tokens": 8}, "parallel_suffix_tokens must be 0"),
        ({"fill_token_id": 288}, "fill_token_id=288 must be less than the model's vocabulary of 288 tokens"),
        ({"begins_with_bos": 1}, "begins_with_bos=1 must be true or false"),
        ({"prefix_tokens": 400}, "prompt and canvas take up to 592 tokens, the model has 512 positions; lower"),
    ],
)
def test_format_that_does_not_fit_is_reported_in_one_sentence(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    folder = make_masked(tmp_path, "a2d-qwen2", num_hidden_layers=1).folder
    values = {
        "fill_token_id": None, "more_token_id": None, "prefix_token_id": None, "suffix_token_id": None,
        "slot_sizes": [8, 16], "prefix_tokens": 64, "suffix_tokens": 0, "suffix_head_tokens": 32,
    }  # fmt: skip
    (folder / "infill.json").write_text(json.dumps(values | changed))
    assert message in refusal(lambda: FAMILY.read_format(read_facts(folder)))
    (folder / "infill.json").write_text(json.dumps(values))
    assert FAMILY.read_format(read_facts(folder)).prefix_tokens == 64


def test_format_of_blocks_has_no_suffix_after_the_canvas(tmp_path: Path) -> None:
    folder = make_masked(tmp_path, "stable-diffcoder", num_hidden_layers=1).folder
    values = {
        "fill_token_id": END, "more_token_id": None, "prefix_token_id": 259, "suffix_token_id": 261,
        "slot_sizes": [8, 16], "prefix_tokens": 64, "suffix_tokens": 16, "suffix_head_tokens": 0,
    }  # fmt: skip
    (folder / "infill.json").write_text(json.dumps(values))
    assert FAMILY.read_format(read_facts(folder)).suffix_tokens == 16
    (folder / "infill.json").write_text(json.dumps(values | {"suffix_head_tokens": 4}))
    assert "suffix_head_tokens must be 0: this model reads the suffix in the prompt" in refusal(
        lambda: FAMILY.read_format(read_facts(folder))
    )


def test_model_without_room_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_masked(tmp_path, "a2d-qwen2", num_hidden_layers=1).folder
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr("dgemma_engine.families.masked_diffusion.free_memory", lambda _device: 1_000)
    said = refusal(lambda: load(folder))
    assert "the model needs 0.4 GiB" in said and "choose a model with fewer parameters" in said


def test_plan_in_a_quantised_format_is_refused(tmp_path: Path) -> None:
    facts = read_facts(make_masked(tmp_path, "a2d-qwen2", num_hidden_layers=1).folder)
    options = PlanOptions(device=CPU, weight_format=Format("int8"), context_tokens=None)
    assert "a masked_diffusion model cannot be quantised; leave --format out" in refusal(
        lambda: FAMILY.plan(facts, options)
    )
