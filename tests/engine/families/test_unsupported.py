"""Checkpoints that would load as another kind: each is refused in one sentence, with what works in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.masked.config import kind_of
from dgemma_engine.families.registry import family_of

WORKS = "choose Stable-DiffCoder 8B, Dream-Coder 7B or Open-dCoder 0.5B"
QWEN = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
DREAM = {"model_type": "Dream", "architectures": ["DreamModel"], "mask_token_id": 151_666}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
A2D = {"model_type": "a2d-qwen3", "architectures": ["A2DQwen3LMHeadModel"]}


def write(folder: Path, config: dict[str, Any], **files: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, values in {"config": config, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        family_of(read_facts(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{folder}: ")


@pytest.mark.parametrize(
    ("config", "files", "start", "remedy"),
    [
        ({"model_type": "sdar", "architectures": ["SDARForCausalLM"]}, {}, "is SDAR, which was not trained to", WORKS),
        ({"model_type": "nemotron_labs_diffusion"}, {}, "is Nemotron-Labs-Diffusion, which was not", WORKS),
        (LLAMA | {"auto_map": {"AutoModel": "modeling_own.M"}}, {}, "comes with code of its own", "without auto_map"),
        (QWEN | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}, {}, "is a causal Qwen3", "family.json"),
    ],
)  # fmt: skip
def test_unsupported_kind_is_refused(
    tmp_path: Path, config: dict[str, Any], files: dict[str, Any], start: str, remedy: str
) -> None:
    said = refusal(write(tmp_path, config, **files))
    assert said.startswith(start)
    assert remedy in said


@pytest.mark.parametrize(
    ("config", "files", "kind"),
    [
        # Only its class differs from a Llama's, in an older upload only its `auto_map`.
        (LLAMA | {"architectures": ["StableDiffcoderForCausalLM"]}, {}, "stable-diffcoder"),
        (LLAMA | {"auto_map": {"AutoModel": "modeling_seed_diffcoder.M"}}, {}, "stable-diffcoder"),
        (A2D | {"_name_or_path": "Qwen3-0.6B/bd3lm/sft"}, {}, "a2d-qwen3-bd3lm"),
        (A2D, {}, "a2d-qwen3"),
        (DREAM, {"generation_config": {"expand_token_id": 7}}, "dreamon"),
        (DREAM, {"added_tokens": {"<|expand|>": 151_667}}, "dreamon"),
        (DREAM, {}, "dream"),
    ],
)
def test_kinds_that_share_a_class_are_told_apart(
    tmp_path: Path, config: dict[str, Any], files: dict[str, Any], kind: str
) -> None:
    facts = read_facts(write(tmp_path / "model", config, **files))
    assert family_of(facts).name == "masked_diffusion"
    assert kind_of(facts).name == kind


def test_name_of_the_folder_tells_the_two_kinds_of_dllm_apart(tmp_path: Path) -> None:
    for kind, name in (("mdlm", "a2d-qwen3"), ("bd3lm", "a2d-qwen3-bd3lm")):
        assert kind_of(read_facts(write(tmp_path / f"Qwen3-0.6B-diffusion-{kind}-v0.1", A2D))).name == name


def test_token_of_the_same_id_makes_no_dreamon(tmp_path: Path) -> None:
    """DiffuCoder's `<|dlm_pad|>` has the id of DreamOn's `<|expand|>`."""
    folder = write(tmp_path, DREAM, added_tokens={"<|mask|>": 151_666, "<|dlm_pad|>": 151_667})
    assert kind_of(read_facts(folder)).name == "dream"


@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens": {"<M>": 151_665}},
        {"tokenizer": {"added_tokens": [{"id": 151_665, "content": "<M>", "special": True}]}},
        {"tokenizer_config": {"added_tokens_decoder": {"151665": {"content": "<M>"}}}},
    ],
)
def test_mask_among_its_tokens_makes_a_qwen_an_open_dcoder(tmp_path: Path, files: dict[str, Any]) -> None:
    assert family_of(read_facts(write(tmp_path, QWEN, **files))).name == "masked_diffusion"


def test_sidecar_overrides_a_refusal_and_a_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "my", QWEN, family={"family": "masked_diffusion", "kind": "a2d-qwen2"})
    assert family_of(read_facts(folder)).name == "masked_diffusion"
    folder = write(tmp_path / "my-bd3lm", A2D, family={"family": "masked_diffusion", "kind": "a2d-qwen3"})
    assert kind_of(read_facts(folder)).name == "a2d-qwen3"


@pytest.mark.parametrize("content", ["[]", "{", "\x00"])
def test_damaged_token_file_is_reported_in_one_sentence(tmp_path: Path, content: str) -> None:
    (write(tmp_path, QWEN) / "added_tokens.json").write_text(content)
    assert "added_tokens.json" in refusal(tmp_path)
