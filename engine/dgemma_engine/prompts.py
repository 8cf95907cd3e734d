"""Prompts kept warm: the longest common beginning of a document's last prompt is not encoded again.

Turns prompt ids into a `PromptCache` that holds exactly those tokens. Knows token ids and caches; knows no text.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch

from dgemma_engine.cache import PromptCache
from dgemma_engine.model import DiffusionGemma


@dataclass(slots=True)
class _Prompt:
    ids: list[int]
    cache: PromptCache


class PromptStore:
    """The last prompt of each of a few documents, least recently used out.

    Args:
        model: encodes what is new.
        num_documents: prompts kept; 0 keeps none.
        max_bytes: of keys and values over all prompts kept; the newest is kept whatever its size.
    """

    def __init__(self, model: DiffusionGemma, *, num_documents: int = 8, max_bytes: int = 2**30) -> None:
        if num_documents < 0:
            raise ValueError(f"{num_documents=} must not be negative")
        self._model = model
        self._num_documents = num_documents
        self._max_bytes = max_bytes
        self._prompts: OrderedDict[str, _Prompt] = OrderedDict()

    @torch.inference_mode()
    def encoded(self, document: str, ids: list[int]) -> PromptCache:
        """Returns a cache that holds exactly `ids`.

        Args:
            document: whose last prompt to start from.
            ids: the prompt; at least one token.

        Returns:
            Valid until the next call for the same document.
        """
        prompt = self._prompts.pop(document, None) or _Prompt([], self._empty_cache(len(ids)))
        shared = _common_length(prompt.ids, ids)
        prompt.cache.truncate(shared)
        # Until the new tokens are encoded the cache must not claim more than it holds.
        prompt.ids = ids[:shared]
        if shared < len(ids):
            new_ids = torch.tensor([ids[shared:]], dtype=torch.int64, device=self._model.device)
            self._model.prefill(new_ids, prompt.cache)
            prompt.ids = list(ids)
        self._prompts[document] = prompt
        self._evict()
        return prompt.cache

    def _evict(self) -> None:
        while len(self._prompts) > max(1, self._num_documents) or (
            len(self._prompts) > 1
            and sum(prompt.cache.num_bytes for prompt in self._prompts.values()) > self._max_bytes
        ):
            self._prompts.popitem(last=False)
        if not self._num_documents:
            self._prompts.clear()

    def _empty_cache(self, num_tokens: int) -> PromptCache:
        model = self._model
        capacity = num_tokens + model.config.canvas_length
        return PromptCache(model.config, capacity=capacity, dtype=model.dtype, device=model.device)


def _common_length(first: list[int], second: list[int]) -> int:
    """Returns how many leading ids two prompts share."""
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))
