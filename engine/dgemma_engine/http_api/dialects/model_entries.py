"""The one model as an entry of the listings that clients read; its name is never a path."""

from __future__ import annotations

import time
from typing import Any

from dgemma_engine.http_api.completions.question import CONTEXT_TOKENS


def model_entry(model: str) -> dict[str, Any]:
    """Returns the entry of OpenAI's listing, with what clients of llama.cpp and Mistral read in it besides."""
    meta = {"n_ctx": CONTEXT_TOKENS, "n_ctx_train": CONTEXT_TOKENS}
    return {
        "id": model,
        "aliases": [model],
        "tags": [],
        "object": "model",
        "created": int(time.time()),
        # Clients read `meta` only where this name stands.
        "owned_by": "llamacpp",
        "meta": meta,
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "context_length": CONTEXT_TOKENS,
        "status": {"value": "loaded"},
        # Mistral's SDK reads an entry by its type and requires the capabilities.
        "type": "base",
        "capabilities": {"completion_chat": False, "completion_fim": True},
        "max_context_length": CONTEXT_TOKENS,
    }


def ollama_like_entry(model: str) -> dict[str, Any]:
    """Returns the entry of the second list that llama.cpp's server has beside OpenAI's."""
    names = ("parent_model", "format", "family", "parameter_size", "quantization_level")
    details: dict[str, Any] = {**dict.fromkeys(names, ""), "families": []}
    return {
        "name": model,
        "model": model,
        "modified_at": "",
        "size": "",
        "digest": "",
        "type": "model",
        "description": "",
        "tags": [],
        "capabilities": ["completion"],
        "context_length": CONTEXT_TOKENS,
        "parameters": "",
        "details": details,
    }
