"""Training and inference agree: many holes in one pass against one prompt each, as in the engine."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from dgemma_engine.families.causal_llama import LlamaFamily
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.llama.adaptation import merge
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.infill.task import build_prompt
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.protocol.messages import Context
from dgemma_engine.tools.adaptation.adapted_base import AdaptedBase
from dgemma_engine.tools.adaptation.adapter_writer import write_adapter
from dgemma_engine.tools.adaptation.batches import SampleBatch
from dgemma_engine.tools.adaptation.config import AdaptConfig
from dgemma_engine.tools.adaptation.factors import collect_gradients
from dgemma_engine.tools.adaptation.parallel_pass import block_states, encode_texts, target_losses
from dgemma_engine.tools.adaptation.samples import Block, Sample, SampleDrawer
from dgemma_engine.tools.adaptation.sources import AdaptSources
from dgemma_engine.tools.corpus.source_lines import SourceCorpus
from torch import Tensor

from tests.rounding import model_error

pytestmark = pytest.mark.numerical

CPU = torch.device("cpu")


@pytest.fixture
def samples(adapted: AdaptedBase, corpus: Path, config: AdaptConfig) -> list[Sample]:
    sources = AdaptSources.of_corpus(SourceCorpus.load(corpus), python_weight=config.samples.python_weight)
    drawer = SampleDrawer(sources.train, adapted.tokenizer, adapted.tokens, config.samples)
    random = Random(5)
    drawn = [drawer.draw(random, num_holes=count) for count in (4, 6)]
    # Suffixes of all lengths, the first of them empty.
    return [
        replace(
            sample,
            blocks=[replace(block, suffix_ids=block.suffix_ids[: 3 * i]) for i, block in enumerate(sample.blocks)],
        )
        for sample in drawn
    ]


@torch.inference_mode()
def engine_logits(path: Path, adapted: AdaptedBase, sample: Sample, block: Block, reserved: int) -> Tensor:
    """Returns the engine's logits of a block: encodes the prompt, adds the suffix to it, then decodes the block."""
    model = load_llama(path, Ops.reference(), device=CPU, dtype=torch.float32)
    merge(model, adapted.factors, base=model)
    cache = PromptCache(model.config, capacity=8, dtype=model.dtype, device=CPU, parallel_tokens=reserved)
    model.prefill(torch.tensor([sample.ids[: block.start]]), cache)
    with cache.beside_prompt(len(block.suffix_ids)):
        if block.suffix_ids:
            model.prefill(torch.tensor([block.suffix_ids]), cache)
    return model.logits(model.encode(torch.tensor([block.input_ids]), cache))[0]


def test_blocks_equal_the_engine_with_separate_prompts(
    adapted: AdaptedBase, samples: list[Sample], base: Path, config: AdaptConfig
) -> None:
    reserved = config.samples.suffix_tokens
    batch = SampleBatch.of(samples, reserved=reserved, device=CPU)
    states = block_states(adapted.plain, batch, encode_texts(adapted.merged, batch), terms=adapted.terms())
    logits = adapted.plain.logits(states)
    owners = [
        (sample, block) for sample in samples for block in sorted(sample.blocks, key=lambda block: len(block.input_ids))
    ]
    assert len({len(block.suffix_ids) for _, block in owners}) > 3 and any(block.num_back for _, block in owners)
    rows = [row for row, block in enumerate(batch.blocks) if block is not None]
    for row, (sample, block) in zip(rows, owners, strict=True):
        theirs = engine_logits(base, adapted, sample, block, reserved)
        ours = logits[row, : len(block.input_ids)]
        assert (ours - theirs).abs().max() / theirs.abs().max() < model_error(64)


def test_parts_equal_the_whole(adapted: AdaptedBase, samples: list[Sample], config: AdaptConfig) -> None:
    batch = SampleBatch.of(samples, reserved=config.samples.suffix_tokens, device=CPU)
    texts, terms = encode_texts(adapted.merged, batch), adapted.terms()
    assert len(batch.suffix_US) < batch.num_holes, "some holes must share an end"
    whole = block_states(adapted.plain, batch, texts, terms=terms)
    rows = {id(block): row for row, block in enumerate(batch.blocks) if block is not None}
    parts = list(batch.parts(3))
    assert sum(part.num_holes for part in parts) == batch.num_holes
    assert min(part.input_RN.shape[1] for part in parts) < batch.input_RN.shape[1]
    for part in parts:
        states = block_states(adapted.plain, part, texts, terms=terms)
        for row, block in enumerate(part.blocks):
            if block is not None:
                ours, theirs = states[row, : len(block.input_ids)], whole[rows[id(block)], : len(block.input_ids)]
                assert (ours - theirs).abs().max() / theirs.abs().max() < model_error(64)


def test_suffix_changes_the_states(adapted: AdaptedBase, samples: list[Sample], config: AdaptConfig) -> None:
    def states(of: list[Sample]) -> Tensor:
        batch = SampleBatch.of(of, reserved=config.samples.suffix_tokens, device=CPU)
        return block_states(adapted.merged, batch, encode_texts(adapted.merged, batch))

    alone = [sample.without_suffix() for sample in samples]
    assert (states(samples) - states(alone)).abs().max() > 0.01


def test_only_the_factors_get_gradients_and_finite_differences_agree(
    adapted: AdaptedBase, samples: list[Sample], config: AdaptConfig
) -> None:
    """Compares with finite differences of the loss; the merged weights that encode the texts stay fixed."""
    batch = SampleBatch.of(samples, reserved=config.samples.suffix_tokens, device=CPU)

    def loss() -> Tensor:
        states = block_states(adapted.plain, batch, encode_texts(adapted.merged, batch), terms=terms)
        return target_losses(adapted.plain, states, batch).mean()

    terms = adapted.terms()
    loss().backward()
    collect_gradients(terms, adapted.factors)
    assert not any(weight.requires_grad for model in (adapted.plain, adapted.merged) for weight in model.parameters())
    for name, tensor in adapted.factors.items():
        gradient = tensor.grad
        assert gradient is not None and gradient.abs().max() > 0, name
        direction = gradient / gradient.norm()
        differences = list[float]()
        for sign in (1, -1):
            with torch.no_grad():
                tensor += sign * 1e-2 * direction
                terms = adapted.terms()
                differences.append(sign * loss().item())
                tensor -= sign * 1e-2 * direction
        assert sum(differences) / 2e-2 == pytest.approx(gradient.norm().item(), rel=0.1, abs=2e-3), name


def test_sample_equals_the_engines_prompt(
    adapted: AdaptedBase, samples: list[Sample], base: Path, tmp_path: Path
) -> None:
    """In the editor a hole's prompt is the document before the middle, without the token that token healing removes."""
    path = Path(shutil.copy(base, tmp_path))
    folder = tmp_path / "adapters"
    folder.mkdir()
    facts = {"base_sha256": adapted.sha256, "tokens": adapted.tokens, "provenance": {"holes": 0}}
    write_adapter(adapted.factors, folder, stage="causal", **facts)
    form, tokenizer = LlamaFamily().read_format(read_facts(path)), adapted.tokenizer
    seen = set[bool]()
    for sample in samples:
        is_named = sample.ids[0] == adapted.tokens.name
        num_head = 1 + (sample.ids.index(tokenizer.encode("\n")[0]) if is_named else 0)
        for block in sample.blocks:
            middle = block.start + 1 + block.num_back
            context = Context(
                document="d",
                prefix=tokenizer.decode(sample.ids[num_head:middle]),
                suffix=tokenizer.decode(block.suffix_ids),
                path=tokenizer.decode(sample.ids[1 : num_head - 1]),
            )
            hole = build_prompt(context, tokenizer, form, adapted.plain.config)
            assert hole.prompt_ids == sample.ids[: middle - 1]
            assert hole.parallel_ids == block.suffix_ids
            assert hole.end_ids >= {block.target_ids[-1]}
        seen.add(is_named)
    assert seen
