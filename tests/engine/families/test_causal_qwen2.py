"""Qwen2 as a family: the infill prompt of its checkpoints, from a folder and from a GGUF file."""

from __future__ import annotations

from pathlib import Path

import pytest
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.families.causal_llama import LlamaFamily
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.families.registry import family_of
from dgemma_engine.infill.task import build_prompt
from dgemma_engine.protocol.messages import Context

from tests.llama_checkpoints import QWEN2_MARKS, SPECIAL, LlamaCheckpoint, alphabet, make_qwen2, write_llama_gguf

END, PREFIX, MIDDLE, SUFFIX = (
    QWEN2_MARKS.index(f"<|{name}|>") for name in ("endoftext", "fim_prefix", "fim_middle", "fim_suffix")
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> LlamaCheckpoint:
    return make_qwen2(tmp_path, num_hidden_layers=1)


def format_of(path: Path) -> InfillFormat:
    facts = read_facts(path)
    return family_of(facts).read_format(facts)


@pytest.mark.parametrize("container", ["folder", "gguf"])
def test_hole_is_prefix_suffix_and_middle_between_the_marks(checkpoint: LlamaCheckpoint, container: str) -> None:
    facts = read_facts(getattr(checkpoint, container))
    family = family_of(facts)
    tokenizer, config = family.read_tokenizer(facts), LlamaConfig.load(checkpoint.folder)
    context = Context(document="d", prefix="a <|fim_middle|>= 1", suffix="\nb\n", path="f.py")
    hole = build_prompt(context, tokenizer, family.read_format(facts), config)
    encode = tokenizer.encode
    assert hole.boundary.opening == "1"
    assert hole.prompt_ids == [PREFIX, *encode("a <|fim_middle|>= "), SUFFIX, *encode("\nb\n"), MIDDLE]
    assert hole.prompt_ids.count(MIDDLE) == 1, "a mark's name in a text is text"
    assert (hole.end_ids, hole.head_ids) == ({END}, ())
    assert not family.has_canvas(facts)


@pytest.mark.parametrize("container", ["folder", "gguf"])
@pytest.mark.parametrize("missing", ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"])
def test_checkpoint_without_a_mark_is_prompted_as_a_llama(
    checkpoint: LlamaCheckpoint, container: str, missing: str
) -> None:
    marks = [SPECIAL[0] if mark == missing else mark for mark in QWEN2_MARKS]
    path = getattr(checkpoint, container)
    if container == "folder":
        file = path / "tokenizer.json"
        file.write_text(file.read_text().replace(missing, SPECIAL[0]))
    else:
        write_llama_gguf(path, checkpoint.reference, tokenizer__ggml__tokens=[*marks, *alphabet(), "de"])
    form = format_of(path)
    assert form == LlamaFamily().read_format(read_facts(path))
    assert (form.middle_token_id, form.suffix_last, form.judges_text) == (None, False, True)
