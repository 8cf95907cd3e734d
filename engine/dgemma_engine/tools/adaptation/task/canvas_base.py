"""A Llama whose canvas is trained on a task: the frozen base, the factors, and the embedding of the mask.

Shape legend: B rows, X canvases, N tokens of a canvas pass, L canvas positions, D hidden.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_engine.errors import TaskError
from dgemma_engine.families.checkpoint_facts import CheckpointFacts, read_facts
from dgemma_engine.families.llama.adapter import AdapterTokens, factor_shapes, fingerprint
from dgemma_engine.families.llama.config import LLAMA
from dgemma_engine.families.llama.layers import Attend
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.families.registry import family_of
from dgemma_engine.model.config import LayerKind
from dgemma_engine.model.devices import weight_dtype
from dgemma_engine.model.graph_kv import GraphKV
from dgemma_engine.model.ops import Ops
from dgemma_engine.tools.adaptation.factors import Factors, collect_gradients, initial_factors, trainable_terms
from dgemma_engine.tools.adaptation.task.canvas_batch import CanvasBatch
from dgemma_engine.tools.tasks.task_model import task_marks


class CanvasBase:
    """The model of a run; no weight of its own has a gradient.

    Args:
        path: GGUF file of a Llama.
        rank: of the adapter.
        device: where everything lives.
        seed: of the factors' first values.

    Attributes:
        sha256: of the file.
        tokenizer: of the file.
        tokens: the marks.
        model: the base; its embedding of the mask is the one that is trained.
        factors: the masters, float32; `rows.ID` is the embedding of the mask.

    Raises:
        CheckpointError: the file cannot be used.
        TaskError: it is no Llama in a GGUF file, or its vocabulary lacks a mark.
    """

    def __init__(self, path: Path, *, rank: int, device: torch.device, seed: int) -> None:
        facts = require_llama(path)
        self.sha256 = fingerprint(path)
        self.tokenizer = family_of(facts).read_tokenizer(facts)
        self.tokens: AdapterTokens = task_marks(path, self.tokenizer)
        self._ops = Ops.reference()
        self.model = load_llama(path, self._ops, device=device, dtype=weight_dtype(device))
        embedding_VD = self.model.embed_tokens.weight
        if self.model.lm_head is None:
            # As the engine reads it: the row of the mask is one of the input only.
            self.model.lm_head = nn.Linear(*reversed(embedding_VD.shape), bias=False, device="meta")
            self.model.lm_head.weight = nn.Parameter(embedding_VD.detach().clone())
        self.model.requires_grad_(requires_grad=False)
        shapes = factor_shapes(self.model.config, rank, self.tokens)
        self.factors: Factors = initial_factors(shapes, torch.Generator(device).manual_seed(seed))
        self._row = f"rows.{self.tokens.mask}"
        self.factors[self._row] = embedding_VD.detach().float().mean(0)
        for tensor in self.factors.values():
            tensor.requires_grad_()

    def backward(self, batch: CanvasBatch) -> float:
        """Sets the gradients of the factors; returns the loss, in nats a free token."""
        terms = trainable_terms(self.factors, self.model)
        cache = self._encoded(batch)
        row_D = self.factors[self._row]
        is_mask_XN1 = (batch.input_XN == self.tokens.mask)[..., None]
        x_XND = torch.where(is_mask_XN1, row_D.to(self.model.dtype), self.model.embed(batch.input_XN))
        rotary = self.model.rotary(batch.canvas_layout.positions, self.model.dtype)[LayerKind.FULL]
        attend = self._attend(cache, batch)
        for layer, term in zip(self.model.layers, terms, strict=True):
            x_XND = layer(x_XND, rotary, attend, term)
        states_XLD = self.model.norm(x_XND)[:, :-1]
        is_target_XL = batch.weight_XL > 0
        logits_NV = self.model.logits(states_XLD[is_target_XL])
        loss = F.cross_entropy(logits_NV, batch.target_XL[is_target_XL])
        loss.backward()
        collect_gradients(terms, self.factors)
        return loss.item()

    @torch.no_grad()
    def _encoded(self, batch: CanvasBatch) -> GraphKV:
        """Returns the prompts' keys and values, once for each canvas."""
        self.model.embed_tokens.weight[self.tokens.mask] = self.factors[self._row].to(self.model.dtype)
        cache, layout = GraphKV(), batch.prompt_layout
        self.model.encode(batch.prompt_BP, cache, positions_BT=layout.positions, attention_masks=layout.masks)
        cache.repeat(len(batch.input_XN) // len(batch.prompt_BP))
        return cache

    def _attend(self, cache: GraphKV, batch: CanvasBatch) -> Attend:
        mask, num_visible = batch.canvas_layout.masks.full, cache.length

        def attend(layer_idx: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = cache.with_canvas(layer_idx, k, v, num_visible)
            return self._ops.attention(q, keys, values, mask)

        return attend


def require_llama(path: Path) -> CheckpointFacts:
    """Returns the facts of a base.

    Raises:
        CheckpointError: the file cannot be used.
        TaskError: it is no Llama in a GGUF file.
    """
    # A folder is refused before anything in it is read.
    facts = read_facts(path) if path.is_file() else None
    if facts is None or family_of(facts).name != LLAMA:
        raise TaskError(
            f"{path}: is no GGUF file of a Llama, and adapters are for those; choose --model small, or train a model "
            "from random weights: dgemma-engine train --task"
        )
    return facts
