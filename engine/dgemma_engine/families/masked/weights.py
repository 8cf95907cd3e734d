"""Tensors of a checkpoint of masked diffusion to the model of its attention: a Hugging Face folder of safetensors."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from dgemma_engine.errors import CheckpointError
from dgemma_engine.families.checkpoint_facts import CheckpointFacts
from dgemma_engine.families.masked.block_model import BlockModel
from dgemma_engine.families.masked.config import MaskedConfig, kind_of
from dgemma_engine.families.masked.model import MaskedModel
from dgemma_engine.families.stored_tensors import FolderTensors, read_parameters
from dgemma_engine.model.ops import Ops

_log = logging.getLogger(__name__)


def load_masked(
    facts: CheckpointFacts,
    ops: Ops,
    *,
    device: torch.device,
    dtype: torch.dtype,
    report: Callable[[int], None] = lambda _percent: None,
) -> MaskedModel | BlockModel:
    """Reads a model. No code of its folder is run, whatever `auto_map` names.

    Args:
        facts: of its folder.
        ops: operations the model will call.
        device: where its weights go.
        dtype: what they are cast to.
        report: called with the percentage read so far.

    Returns:
        The model in inference mode, without gradients. A head that the files hold is used, whatever the configuration
        says of tied weights: published checkpoints hold a trained one beside the claim that there is none.

    Raises:
        CheckpointError: names the file, key or tensor that cannot be used, and what to do.
    """
    config, kind, tensors = MaskedConfig.of_facts(facts), kind_of(facts), FolderTensors(facts.path)
    is_tied = facts.config.get(kind.config_keys.get("tie_word_embeddings", "tie_word_embeddings"))
    has_head = kind.names.head in tensors.names
    if has_head and is_tied:
        _log.warning("%s: config.json says the head is the embedding, but there is a head: it is used", facts.path)
    if not has_head and is_tied is False:
        raise CheckpointError(
            f"{facts.path}: lacks {kind.names.head}, and config.json says that the embedding is no head; get the whole "
            "model again"
        )
    with torch.device("meta"):
        model = (BlockModel if config.block_tokens else MaskedModel)(config, ops, has_head=has_head)
    read_parameters(
        model, tensors, kind.names, kind=f"a model of the kind {kind.name}", device=device, dtype=dtype, report=report
    )
    return model
