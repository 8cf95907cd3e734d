"""The family of a checkpoint by its metadata; each family loads a model and its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.errors import CheckpointError, FormatError
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.family import LoadOptions
from dgemma_engine.families.registry import FAMILIES, family_of
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops

from tests.engine.conftest import Checkpoint
from tests.gguf_files import write_gguf
from tests.llama_checkpoints import make_llama, make_qwen2
from tests.masked_checkpoints import make_masked


def config(folder: Path, **values: object) -> Path:
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"model_type": "diffusion_gemma"}, "diffusion_gemma"),
        ({"model_type": "llama"}, "llama"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "llama"),
        ({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}, "qwen2"),
        ({"model_type": "Dream", "architectures": ["DreamModel"], "auto_map": {}}, "masked_diffusion"),
        ({"model_type": "llada"}, "masked_diffusion"),
        ({"model_type": "a2d-qwen3", "architectures": ["A2DQwen3LMHeadModel"]}, "masked_diffusion"),
    ],
)
def test_folder_is_recognised(tmp_path: Path, values: dict[str, object], name: str) -> None:
    assert family_of(read_facts(config(tmp_path, **values))).name == name


def test_gguf_is_recognised(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama"}, {})
    assert family_of(read_facts(path)).name == "llama"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "t5"}, "is a 't5' model, only diffusion_gemma, masked_diffusion, llama, qwen2 can be run"),
        ({"model_type": "a2d-qwen3", "architectures": ["Other"]}, "is a 'a2d-qwen3 Other' model"),
        ({"model_type": "own", "auto_map": {"AutoModel": "m.M"}}, "comes with code of its own .*, which is never run"),
        ({}, "is a 'None' model"),
    ],
)
def test_other_folder_is_reported_in_one_sentence(tmp_path: Path, values: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        family_of(read_facts(config(tmp_path, **values)))


def test_other_gguf_is_reported_in_one_sentence(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"general.architecture": "diffusion_gemma"}, {})
    with pytest.raises(CheckpointError, match=r"m\.gguf: is a 'diffusion_gemma' model"):
        family_of(read_facts(path))


def test_sidecar_overrides_the_configuration(tmp_path: Path) -> None:
    config(tmp_path, model_type="own")
    (tmp_path / "family.json").write_text('{"family": "llama", "mask_token_id": 16}')
    facts = read_facts(tmp_path)
    family = family_of(facts)
    assert family.name == "llama"
    assert not family.has_canvas(facts), "a mask token alone makes no canvas whose states score their own positions"
    path = write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama"}, {})
    (tmp_path / "m.family.json").write_text('{"family": "unheard", "mask_token_id": 16}')
    with pytest.raises(CheckpointError, match="is a 'unheard' model"):
        family_of(read_facts(path))


@pytest.mark.parametrize("content", ["", "[]", "\xff"])
def test_damaged_sidecar_is_reported_in_one_sentence(tmp_path: Path, content: str) -> None:
    config(tmp_path, model_type="llama")
    (tmp_path / "family.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"family\.json"):
        read_facts(tmp_path)


def test_what_is_no_checkpoint_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json here; name a model folder or a GGUF file"):
        read_facts(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_facts(tmp_path / "absent")


def test_every_family_loads_what_it_recognises(tmp_path: Path, make_checkpoint: Callable[..., Checkpoint]) -> None:
    llama, masked = make_llama(tmp_path / "llama"), make_masked(tmp_path / "masked", "dream")
    qwen2 = make_qwen2(tmp_path / "qwen2")
    options = LoadOptions(
        device=torch.device("cpu"), ops=Ops.reference(), prompt_tokens=64, report=lambda _percent: None
    )
    found: set[str] = set()
    for path in (make_checkpoint().folder, llama.folder, llama.gguf, qwen2.folder, qwen2.gguf, masked.folder):
        facts = read_facts(path)
        family = family_of(facts)
        model, tokenizer = family.load_model(facts, options), family.read_tokenizer(facts)
        tokenizer.require_vocab(model.config.vocab_size)
        ids = tokenizer.encode("def f(): return 1")
        assert tokenizer.decode(ids) == "def f(): return 1"
        cache = PromptCache(model.config, capacity=8, dtype=model.dtype, device=model.device)
        with torch.inference_mode():
            model.prefill(torch.tensor([ids]), cache)
            assert model.logits(model.decode(torch.tensor([ids]), cache)).shape == (
                1,
                len(ids),
                model.config.vocab_size,
            )
            if model.has_causal_mode:
                assert model.encode(torch.tensor([ids]), cache).shape == (1, len(ids), model.config.hidden_size)
        assert family.read_format(facts).prefix_tokens > 0
        found.add(family.name)
    assert found == {family.name for family in FAMILIES}


def test_format_that_the_family_cannot_honour_is_refused(make_checkpoint: Callable[..., Checkpoint]) -> None:
    folder = make_checkpoint().folder
    replace(InfillFormat.untrained(), parallel_suffix_tokens=8).save(folder)
    facts = read_facts(folder)
    with pytest.raises(FormatError, match="this family reads no suffix beside the prompt"):
        family_of(facts).read_format(facts)
