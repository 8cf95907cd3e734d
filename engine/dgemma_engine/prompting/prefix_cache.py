"""Prompts kept warm: the longest common beginning of a document's last prompt is not encoded again.

Turns prompt ids into a `PromptCache` that holds exactly those tokens. The suffix stands at the prompt's beginning, so a
prompt with another suffix is encoded from scratch: a suffix is kept while edits below the cursor change little of it.
What the canvas clamps is always the suffix as it is now. A prompt that another adapter encoded is no beginning. Knows
token ids and caches; knows no text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import torch
from torch import Tensor

from dgemma_engine.bounded_store import MOST_DOCUMENTS, BoundedStore
from dgemma_engine.model.devices import PIECE_TOKENS, PROMPT_STORE_BYTES
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.kv_rows import prompt_bytes
from dgemma_engine.model.model_adapter import ModelAdapter
from dgemma_engine.scheduling.cooperative import Pieces
from dgemma_engine.scheduling.timing import Cancel

# Tokens that are worth no pass of their own: the first denoising step takes them along.
JOINED_TOKENS: Mapping[str, int] = {"cpu": 16, "cuda": 0}
# Share of the suffix that may differ before the prompt's copy is renewed.
_MOST_DIFFERENT = 0.15


@dataclass(slots=True)
class _Prompt:
    ids: list[int]
    cache: PromptCache
    parallel_ids: tuple[int, ...] = ()
    num_encoded: int = 0


class PromptStore:
    """The last prompt of each document, least recently used out.

    Args:
        model: encodes what is new.
        num_documents: most prompts kept; 0 keeps none.
        max_bytes: of keys and values over all prompts kept; the newest and those in use are kept whatever their size.
        parallel_tokens: places reserved for a text beside each prompt.

    Attributes:
        in_use: documents whose prompts are kept, whatever others need.
    """

    def __init__(
        self,
        model: DiffusionModel,
        *,
        num_documents: int = MOST_DOCUMENTS,
        max_bytes: int = PROMPT_STORE_BYTES["cuda"],
        parallel_tokens: int = 0,
    ) -> None:
        self._model = model
        self._parallel_tokens = parallel_tokens
        self.in_use: set[str] = set()
        self._prompts: BoundedStore[str, _Prompt] = BoundedStore(num_documents, max_weight=max_bytes, kept=self.in_use)

    def num_encoded(self, document: str) -> int:
        """Returns how many tokens the last call for a document found missing."""
        prompt = self._prompts.get(document)
        return 0 if prompt is None else prompt.num_encoded

    @torch.inference_mode()
    def encoded(
        self,
        document: str,
        ids: list[int],
        cancel: Cancel,
        *,
        most_left: int = 0,
        parallel_ids: Sequence[int] = (),
        adapter: ModelAdapter | None = None,
    ) -> Pieces[PromptCache | None]:
        """Returns a cache that holds exactly `ids`, and `parallel_ids` beside them; in pieces.

        Args:
            document: whose last prompt to start from.
            ids: the prompt; at least one token.
            cancel: checked between pieces of a long prompt; what is encoded by then is kept for the next request.
            most_left: if no more tokens than these are missing, they are left out, for the caller's next pass to add.
            parallel_ids: the text beside the prompt, at most `parallel_tokens`; encoded anew when it is another one.
            adapter: takes part in the passes over the cache; the prompt is encoded anew when it is another one.

        Returns:
            Valid until the next call for the same document; None if the request was cancelled or its deadline passed.
        """
        prompt = self._prompts.get(document)
        if prompt is None or prompt.cache.adapter is not adapter:
            self._prompts.pop(document)
            prompt = _Prompt([], self._empty_cache(len(ids), adapter))
        # A request that failed half-way, or added nothing, may have left the cache shorter than the prompt.
        most = min(len(prompt.ids), len(ids), prompt.cache.num_prompt)
        shared = next((index for index in range(most) if prompt.ids[index] != ids[index]), most)
        # A prompt cannot be continued from what sliding layers have dropped.
        shared = shared if prompt.cache.prompt_start + shared >= prompt.cache.least_length else 0
        prompt.cache.truncate(prompt.cache.prompt_start + shared)
        prompt.cache.settle()
        # Until the new tokens are encoded the cache must not claim more than it holds.
        prompt.ids = ids[:shared]
        self._prompts.put(document, prompt, weight=prompt.cache.num_bytes)
        prompt.num_encoded = len(ids) - shared
        if prompt.parallel_ids != tuple(parallel_ids):
            yield
            if cancel.finish is not None:
                return None
            prompt.parallel_ids = ()
            with prompt.cache.beside_prompt(len(parallel_ids)):
                if parallel_ids:
                    self._model.prefill(self._tensor(parallel_ids), prompt.cache)
            prompt.parallel_ids = tuple(parallel_ids)
            prompt.num_encoded += len(parallel_ids)
        if len(ids) - shared <= most_left:
            prompt.ids = ids
            return prompt.cache
        size = PIECE_TOKENS[self._model.device.type]
        for start in range(shared, len(ids), size):
            yield
            if cancel.finish is not None:
                return None
            piece = ids[start : start + size]
            self._model.prefill(self._tensor(piece), prompt.cache)
            prompt.cache.settle()
            prompt.ids = ids[: start + len(piece)]
        return prompt.cache

    def clear(self) -> None:
        """Drops all prompts, and what was captured of them: each is encoded anew when it is needed."""
        self._prompts.clear()
        self._model.release_captured()

    def _tensor(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor([ids], dtype=torch.int64, device=self._model.device)

    def _empty_cache(self, num_tokens: int, adapter: ModelAdapter | None) -> PromptCache:
        """Returns the cache of a new document; other prompts are evicted before its memory is allocated, not after."""
        model = self._model
        capacity = self._parallel_tokens + num_tokens + model.config.canvas_length
        edit_tokens = None if self._parallel_tokens else model.edit_tokens
        self._prompts.make_room(prompt_bytes(model.config, capacity, model.dtype, edit_tokens=edit_tokens))
        return PromptCache(
            model.config,
            capacity=capacity,
            dtype=model.dtype,
            device=model.device,
            parallel_tokens=self._parallel_tokens,
            adapter=adapter,
            edit_tokens=edit_tokens,
        )


class SuffixStore:
    """The last prompt suffix of each document, least recently used out.

    Args:
        num_documents: suffixes kept; 0 keeps none.
    """

    def __init__(self, *, num_documents: int = MOST_DOCUMENTS) -> None:
        self._kept: BoundedStore[str, list[int]] = BoundedStore(num_documents)

    def settled(self, document: str, suffix_ids: list[int], num_clamped: int) -> list[int]:
        """Returns the suffix to put into the prompt: the last one, or the real one where that will not do.

        Args:
            document: whose suffix.
            suffix_ids: the real one, as much of it as a prompt holds.
            num_clamped: leading tokens that must be right, since the canvas shows them too.
        """
        kept = self._kept.get(document)
        if kept is None or kept[:num_clamped] != suffix_ids[:num_clamped]:
            kept = suffix_ids
        elif kept != suffix_ids:
            is_close = SequenceMatcher(None, kept, suffix_ids, autojunk=False).ratio() >= 1 - _MOST_DIFFERENT
            kept = kept if is_close else suffix_ids
        self._kept.put(document, kept)
        return kept
