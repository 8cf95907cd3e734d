"""A base under training: the frozen model, its copy with the adapter merged in, and the factors.

The copy encodes documents and suffixes; it lags some steps behind the factors, so that merging costs little.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch

from dgemma_engine.errors import TrainingError
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.llama.adaptation import merge
from dgemma_engine.families.llama.adapter import Adapter, AdapterTokens, factor_shapes, fingerprint
from dgemma_engine.families.llama.config import LLAMA
from dgemma_engine.families.llama.layers import LayerTerms
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.families.registry import family_of
from dgemma_engine.model.devices import weight_dtype
from dgemma_engine.model.ops import Ops
from dgemma_engine.tokenization.tokenizer import Tokenizer
from dgemma_engine.tools.adaptation.factors import Factors, copied, initial_factors, trainable_terms

# Marks that SmolLM2 and its relatives hold and never use within a file of code.
_END, _NAME = "<|endoftext|>", "<filename>"


class AdaptedBase:
    """The models of a run; no weight of theirs has a gradient.

    Args:
        path: GGUF file of a Llama.
        rank: of the adapter.
        device: where everything lives.
        seed: of the factors' first values.
        beneath: adapter that the engine merges into the base; this one is trained on top of it, with its marks. None
            trains on the base as it is.

    Attributes:
        path: as given.
        sha256: of the file.
        identity: what the factors belong to, JSON-ready.
        tokenizer: of the file.
        tokens: the adapter's marks.
        plain: the base that is trained on.
        merged: the base with `merge`'s factors added.
        factors: the float32 master weights.
        merged_factors: copies of those that `merged` holds.

    Raises:
        CheckpointError: the file cannot be used.
        TrainingError: it is no Llama in a GGUF file, or its vocabulary lacks the marks.
    """

    def __init__(
        self, path: Path, *, rank: int, device: torch.device, seed: int, beneath: Adapter | None = None
    ) -> None:
        # A folder is refused before anything in it is read.
        facts = read_facts(path) if path.is_file() else None
        if facts is None or family_of(facts).name != LLAMA:
            raise TrainingError(
                f"{path}: is no GGUF file of a Llama, and adapters are for those; choose another --base"
            )
        self.path, self.sha256 = path, fingerprint(path)
        self.tokenizer = family_of(facts).read_tokenizer(facts)
        self.identity = {"base_sha256": self.sha256}
        self.plain = load_llama(path, Ops.reference(), device=device, dtype=weight_dtype(device))
        if beneath is None:
            self.tokens = _marks(path, self.tokenizer)
        else:
            self.identity["merged_sha256"] = fingerprint(beneath.path)
            self.tokens = AdapterTokens(end=beneath.tokens.end, name=beneath.tokens.name)
            merge(self.plain, beneath.tensors(self.plain.config), base=self.plain)
        self.merged = copy.deepcopy(self.plain)
        shapes = factor_shapes(self.plain.config, rank, self.tokens)
        self.factors = initial_factors(shapes, torch.Generator(device).manual_seed(seed))
        self.merged_factors = copied(self.factors)

    def terms(self) -> Sequence[LayerTerms]:
        """Returns what the factors add to each layer, with gradients to come."""
        return trainable_terms(self.factors, self.plain)

    def merge(self, factors: Factors) -> None:
        """Makes `merged` the base with these factors; the caller sets `merged_factors`."""
        merge(self.merged, factors, base=self.plain)


def _marks(path: Path, tokenizer: Tokenizer) -> AdapterTokens:
    ids = {tokenizer.name_of(token_id): token_id for token_id in tokenizer.special_ids}
    if missing := [name for name in (_END, _NAME) if name not in ids]:
        raise TrainingError(f"{path}: its vocabulary has no special token {missing[0]}; choose another --base")
    return AdapterTokens(end=ids[_END], name=ids[_NAME])
