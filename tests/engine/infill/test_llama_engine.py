"""A Llama in the engine: from left to right with token healing, whichever decoding a request asks for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from dgemma_engine.families.llama.packed_model import PackedLlama
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.infill.autoregressive import write
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.options import Decode, InfillOptions
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.protocol.messages import Context
from dgemma_engine.scheduling.cooperative import finished
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tokenization.healed_start import HealedStart
from dgemma_engine.tokenization.tokenizer import Spelling, Tokenizer
from torch import Tensor

from tests.llama_checkpoints import LlamaCheckpoint, make_llama, write_adapter

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> LlamaCheckpoint:
    return make_llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=2_048)


def never() -> Cancel:
    return Cancel(deadline_s=1e9, clock=lambda: 0.0)


def load(path: Path) -> Engine:
    return Engine.load(path, device="cpu", report=lambda _percent, _message: None)


def test_engine_fills_a_hole_from_left_to_right(checkpoint: LlamaCheckpoint) -> None:
    context = Context(document="d", prefix="def f(a):\n    return a.", suffix="\n", path="f.py", max_middle_tokens=12)
    answers = [
        load(path).infill(context, never(), options=InfillOptions(silence=False))
        for path in (checkpoint.folder, checkpoint.gguf)
    ]
    assert answers[0].text == answers[1].text
    assert answers[0].steps == 0
    engine = load(checkpoint.gguf)
    ranked = [
        [
            candidate.proposal.text
            for candidate in engine.ranked(context, never(), options=InfillOptions(decode=decode, seeds=False))
        ]
        for decode in Decode
    ]
    assert ranked[0] == ranked[1] == ranked[2]


def test_engine_names_the_file(checkpoint: LlamaCheckpoint) -> None:
    engine = load(checkpoint.gguf)
    assert (engine.model_name, engine.model_path) == ("model.gguf", str(checkpoint.gguf))


@pytest.mark.parametrize("is_wrong", [True, False])
@pytest.mark.parametrize("begun", ["de", "\n  d", "", " "])
@torch.inference_mode()
def test_written_tokens_begin_with_the_given_text(checkpoint: LlamaCheckpoint, begun: str, is_wrong: bool) -> None:
    """Against a plain loop that tries every token: the likeliest with which the text can still be spelt."""
    model = load_llama(checkpoint.folder, Ops.reference(), device=CPU, dtype=torch.float32)
    tokenizer = Tokenizer.load(checkpoint.folder)
    spelling, prompt = Spelling(tokenizer), tokenizer.encode("def f")
    texts = [text or "" for text in tokenizer.token_texts()] + [""] * (288 - tokenizer.vocab_size)
    expected, said = list[int](), ""
    for _ in range(8):
        logits = checkpoint.reference(torch.tensor([[*prompt, *expected]])).logits[0, -1].clone()
        if not said.startswith(begun):
            fits = [bool(text) and (begun.startswith(said + text) or (said + text).startswith(begun)) for text in texts]
            logits[~torch.tensor(fits)] = -torch.inf
        expected.append(int(logits.argmax()))
        said += texts[expected[-1]]
    cache = PromptCache(model.config, capacity=8, dtype=model.dtype, device=CPU)
    model.prefill(torch.tensor([prompt]), cache)
    draft, num_passes = ([70, 71], 8) if is_wrong else (expected, 1)
    written = finished(
        write(
            model, cache, prompt[-1], forced_ids=(), allowed=HealedStart(begun, spelling).allowed, draft_ids=draft,
            banned_ids=(), ends=lambda _token_id: False, closes=lambda _ids: False, max_tokens=8, max_passes=100,
            cancel=never(),
        )
    )  # fmt: skip
    assert written.ids == expected
    assert written.passes == num_passes
    assert cache.length == len(prompt)


@pytest.mark.parametrize(
    ("prefix", "is_empty"), [("def f(a):\n    return a\n    ", False), ("def f(a):\n    return a", True)]
)
def test_blank_line_gets_a_text_even_from_a_model_that_would_end_it(
    checkpoint: LlamaCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str, is_empty: bool
) -> None:
    path = Path(shutil.copy(checkpoint.gguf, tmp_path))
    write_adapter(path, "causal")
    engine, logits = load(path), PackedLlama.logits
    [letter_id] = Tokenizer.load(checkpoint.folder).encode("x")

    def favouring_the_end(model: PackedLlama, hidden_BLD: Tensor) -> Tensor:
        scores = logits(model, hidden_BLD)
        scores[..., 0] += 1e4
        scores[..., letter_id] += 1e3
        return scores

    monkeypatch.setattr(PackedLlama, "logits", favouring_the_end)
    context = Context(document="d", prefix=prefix, suffix="\nprint(f(1))\n", path="f.py")
    found = engine.ranked(context, never(), options=InfillOptions(seeds=False))
    assert [candidate.proposal.text for candidate in found] == ([] if is_empty else ["x"])
