"""Small random checkpoints of the released layout, written by `transformers` itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SLIDING, FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A folder, and the reference model it was written from."""

    folder: Path
    reference: Any


def _reference(seed: int, text: dict[str, Any], canvas_length: int, *, equal_scalars: bool, spread: float) -> Any:
    from transformers import DiffusionGemmaConfig, DiffusionGemmaTextConfig, Gemma4VisionConfig
    from transformers.models.diffusion_gemma import DiffusionGemmaForBlockDiffusion

    defaults: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 96,
        "moe_intermediate_size": 32,
        "num_experts": 4,
        "top_k_experts": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "global_head_dim": 32,
        "num_global_key_value_heads": 1,
        "sliding_window": 8,
        "layer_types": [SLIDING, SLIDING, FULL],
        "max_position_embeddings": 1024,
    }
    values = defaults | text
    config = DiffusionGemmaConfig(
        text_config=DiffusionGemmaTextConfig(num_hidden_layers=len(values["layer_types"]), **values),
        vision_config=Gemma4VisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
            head_dim=16, patch_size=2, position_embedding_size=4,
        ),
        canvas_length=canvas_length,
    )  # fmt: skip
    model = DiffusionGemmaForBlockDiffusion(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            # Scales other than 1 and large matrices, so that a missing norm or factor changes the results.
            center, width = (0.0, spread) if parameter.ndim > 1 else (1.0, 0.2)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * width + center)
        pairs = zip(model.model.decoder.layers, model.model.encoder.language_model.layers, strict=True)
        for decoder_layer, encoder_layer in pairs:
            decoder_layer.layer_scalar.copy_(torch.rand(1, generator=generator) + 0.5)
            other = decoder_layer.layer_scalar if equal_scalars else torch.rand(1, generator=generator) + 0.5
            encoder_layer.layer_scalar.copy_(other)
    return model


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Checkpoint]:
    """Returns a function that writes a random checkpoint; keywords override fields of `text_config`."""

    def make(
        seed: int = 0,
        *,
        canvas_length: int = 16,
        equal_scalars: bool = False,
        spread: float = 0.3,
        max_shard_size: str = "1GB",
        dtype: torch.dtype = torch.float32,
        **text: Any,
    ) -> Checkpoint:
        folder = tmp_path_factory.mktemp("checkpoint")
        model = _reference(seed, text, canvas_length, equal_scalars=equal_scalars, spread=spread)
        model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
        _byte_tokenizer().save(str(folder / "tokenizer.json"))
        return Checkpoint(folder=folder, reference=model.float())

    return make


def _byte_tokenizer() -> Tokenizer:
    """One token per byte after 16 special ones: 272 ids encode any text."""
    # Imported here because the kernel tests below this folder also run without this package.
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|prefix|>", "<|suffix|>", "<fill>", "<more>"]
    specials += [f"<reserved{i}>" for i in range(9, 16)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*specials, *alphabet])}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    return tokenizer


@pytest.fixture
def edit_json() -> Callable[..., None]:
    """Returns a function that changes one value in a JSON file: `edit_json(path, value, "outer", "inner")`."""

    def edit(path: Path, value: object, *keys: str) -> None:
        content = json.loads(path.read_text())
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        path.write_text(json.dumps(content))

    return edit
