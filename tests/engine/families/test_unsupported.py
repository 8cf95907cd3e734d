"""Checkpoints that would load as another kind: each is refused in one sentence, with what works in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.registry import family_of

WORKS = "choose Dream-Coder 7B, Open-dCoder 0.5B or a model of dLLM trained as mdlm"
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
        ({"model_type": "sdar", "architectures": ["SDARForCausalLM"]}, {}, "is SDAR, which attends block by", WORKS),
        ({"model_type": "nemotron_labs_diffusion"}, {}, "is Nemotron-Labs-Diffusion, which attends block by", WORKS),
        # Only its class tells it from a Llama, in an older upload only the code it brings.
        (LLAMA | {"architectures": ["StableDiffcoderForCausalLM"]}, {}, "is Stable-DiffCoder, which attends", WORKS),
        (LLAMA | {"auto_map": {"AutoModel": "modeling_seed_diffcoder.M"}}, {}, "is Stable-DiffCoder, which", WORKS),
        (LLAMA | {"auto_map": {"AutoModel": "modeling_own.M"}}, {}, "comes with code of its own", "without auto_map"),
        (A2D | {"_name_or_path": "Qwen3-0.6B/bd3lm/sft"}, {}, "is a block diffusion model of dLLM (bd3lm)", WORKS),
        (DREAM, {"generation_config": {"expand_token_id": 7}}, "is DreamOn, whose canvas grows", "Dream-Coder 7B"),
        (DREAM, {"added_tokens": {"<|expand|>": 151_667}}, "is DreamOn, whose canvas grows", "Dream-Coder 7B"),
        (QWEN, {}, "is a causal Qwen2ForCausalLM without a mask token", "say so in family.json"),
        (QWEN | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}, {}, "is a causal Qwen3", "family.json"),
    ],
)  # fmt: skip
def test_unsupported_kind_is_refused(
    tmp_path: Path, config: dict[str, Any], files: dict[str, Any], start: str, remedy: str
) -> None:
    said = refusal(write(tmp_path, config, **files))
    assert said.startswith(start)
    assert remedy in said


def test_name_of_the_folder_tells_the_two_kinds_of_dllm_apart(tmp_path: Path) -> None:
    assert "bd3lm" in refusal(write(tmp_path / "Qwen3-0.6B-diffusion-bd3lm-v0.1", A2D))
    other = write(tmp_path / "Qwen3-0.6B-diffusion-mdlm-v0.1", A2D)
    assert family_of(read_facts(other)).name == "masked_diffusion"


def test_token_of_the_same_id_makes_no_dreamon(tmp_path: Path) -> None:
    """DiffuCoder's `<|dlm_pad|>` has the id of DreamOn's `<|expand|>`."""
    folder = write(tmp_path, DREAM, added_tokens={"<|mask|>": 151_666, "<|dlm_pad|>": 151_667})
    assert family_of(read_facts(folder)).name == "masked_diffusion"


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


def test_sidecar_overrides_a_refusal(tmp_path: Path) -> None:
    folder = write(tmp_path / "my-bd3lm", A2D, family={"family": "masked_diffusion"})
    assert family_of(read_facts(folder)).name == "masked_diffusion"


@pytest.mark.parametrize("content", ["[]", "{", "\x00"])
def test_damaged_token_file_is_one_sentence(tmp_path: Path, content: str) -> None:
    (write(tmp_path, QWEN) / "added_tokens.json").write_text(content)
    assert "added_tokens.json" in refusal(tmp_path)
