"""Qwen2 as a family: Llamas with a bias of queries, keys and values that were trained to fill holes from left to right.

The prompt of Qwen2.5-Coder is `<|fim_prefix|>` prefix `<|fim_suffix|>` suffix `<|fim_middle|>` (its README, section on
filling in the middle): the suffix stands between prefix and middle, so each typed key encodes the suffix again. It ends
a middle itself. A checkpoint without these marks gets the prompt of a Llama.
"""

from __future__ import annotations

from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.families.causal_llama import LlamaFamily
from dgemma_engine.families.checkpoint_facts import CheckpointFacts
from dgemma_engine.families.llama.config import QWEN2, LlamaConfig
from dgemma_engine.tokenization.added_tokens import added_tokens
from dgemma_engine.tokenization.exact_tokenizer import read_exact_tokenizer
from dgemma_engine.tokenization.gguf_tokenizer import read_tokenizer
from dgemma_engine.tokenization.tokenizer import Tokenizer

_PREFIX, _SUFFIX, _MIDDLE, _END = "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"
_PREFIX_TOKENS, _SUFFIX_TOKENS = 768, 128


class Qwen2Family(LlamaFamily):
    """See `Family`."""

    name: str = QWEN2

    def read_tokenizer(self, facts: CheckpointFacts) -> Tokenizer:
        """See `Family.read_tokenizer`; a folder's own one has marks that are not special, and normalises."""
        if facts.gguf is not None:
            return read_tokenizer(facts.gguf)
        return read_exact_tokenizer(facts.path, vocab_size=LlamaConfig.load(facts.path).vocab_size)

    def read_format(self, facts: CheckpointFacts) -> InfillFormat:
        """See `Family.read_format`."""
        if facts.gguf is None:
            ids = added_tokens(facts.path)
        else:
            ids = {name: token_id for token_id, name in enumerate(facts.gguf.strings("tokenizer.ggml.tokens"))}
        if not ids.keys() >= {_PREFIX, _SUFFIX, _MIDDLE, _END}:
            return super().read_format(facts)
        return InfillFormat(
            fill_token_id=ids[_END],
            more_token_id=None,
            prefix_token_id=ids[_PREFIX],
            suffix_token_id=ids[_SUFFIX],
            middle_token_id=ids[_MIDDLE],
            slot_sizes=(8, 16, 32),
            prefix_tokens=_PREFIX_TOKENS,
            suffix_tokens=_SUFFIX_TOKENS,
            suffix_head_tokens=0,
            snippet_tokens=512,
            healing="token",
            suffix_last=True,
            judges_text=True,
            begins_with_bos=False,
        )
