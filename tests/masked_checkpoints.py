"""Small random checkpoints of each kind of masked diffusion, and the `transformers` models that they are built on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

KINDS = ("open-dcoder", "a2d-qwen2", "a2d-qwen3", "a2d-llama", "dream", "dreamon", "llada")
# Positions of a block, by the kinds that attend block by block.
BLOCK_KINDS = {"a2d-qwen2-bd3lm": 32, "a2d-qwen3-bd3lm": 32, "stable-diffcoder": 4}
VOCAB_SIZE, END, MASK, EXPAND = 288, 257, 260, 261
_CLASSES = {
    "a2d-qwen2": ("a2d-qwen2", "A2DQwen2LMHeadModel"),
    "a2d-qwen3": ("a2d-qwen3", "A2DQwen3LMHeadModel"),
    "a2d-llama": ("a2d-llama", "A2DLlamaLMHeadModel"),
    "dream": ("Dream", "DreamModel"),
    "dreamon": ("Dream", "DreamModel"),
    "a2d-qwen2-bd3lm": ("a2d-qwen2", "A2DQwen2LMHeadModel"),
    "a2d-qwen3-bd3lm": ("a2d-qwen3", "A2DQwen3LMHeadModel"),
    "stable-diffcoder": ("llama", "StableDiffcoderForCausalLM"),
}
_BACKBONES = {"a2d-qwen3": "Qwen3", "a2d-qwen3-bd3lm": "Qwen3", "a2d-llama": "Llama", "llada": "Llama"}
_BACKBONES |= {"stable-diffcoder": "Llama"}
# Tokens that are added to the alphabet and `de`, by id.
ADDED = {END: "<|endoftext|>", 258: "<|im_end|>", 259: "<|fim_prefix|>", MASK: "<|mask|>"}
_LLADA_NAMES = {
    "model.embed_tokens": "model.transformer.wte",
    "model.norm": "model.transformer.ln_f",
    "lm_head": "model.transformer.ff_out",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "q_proj",
    "self_attn.k_proj": "k_proj",
    "self_attn.v_proj": "v_proj",
    "self_attn.o_proj": "attn_out",
    "post_attention_layernorm": "ff_norm",
    "mlp.gate_proj": "ff_proj",
    "mlp.up_proj": "up_proj",
    "mlp.down_proj": "ff_out",
}
# `transformers/models/qwen2/tokenization_qwen2.py`
_SPLITS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedCheckpoint:
    """A folder, and the causal reference model that it was written from.

    Attributes:
        is_shifted: whether the state before a position scores it.
        block_tokens: positions that see one another and earlier ones only; 0 for a model that sees everything.
    """

    folder: Path
    reference: Any
    is_shifted: bool
    block_tokens: int = 0

    def logits(self, ids: list[int]) -> torch.Tensor:
        """Returns what the reference computes for each position of a text when each sees all that it may, [T, V]."""
        num = len(ids)
        mask_TT = torch.zeros(num, num)
        if self.block_tokens:
            block_T = torch.arange(num) // self.block_tokens
            mask_TT = mask_TT.masked_fill(block_T[None, :] > block_T[:, None], torch.finfo(torch.float32).min)
        logits_TV = self.reference(torch.tensor([ids]), attention_mask=mask_TT[None, None], use_cache=False).logits[0]
        return torch.cat((logits_TV[:1], logits_TV[:-1])) if self.is_shifted else logits_TV


def make_masked(folder: Path, kind: str, seed: int = 0, *, spread: float = 0.2, **changed: Any) -> MaskedCheckpoint:
    """Writes a model; `changed` are fields of its configuration in `transformers`."""
    import transformers

    name = _BACKBONES.get(kind, "Qwen2")
    values: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 4 if kind == "llada" else 2, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": kind == "open-dcoder", "bos_token_id": END, "eos_token_id": END,
        "rope_theta": 10_000.0,
    }  # fmt: skip
    values |= {"head_dim": 24} if name == "Qwen3" else {}
    config = getattr(transformers, f"{name}Config")(**values | changed)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # Scales differ from 1 and biases from 0, so that leaving one out changes the result.
            center, width = (0.0, spread) if parameter.ndim > 1 else (0.0, 0.5) if key.endswith("bias") else (1.0, 0.2)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * width + center)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if kind in _CLASSES:
        model_type, architecture = _CLASSES[kind]
        edit(folder, model_type=model_type, architectures=[architecture], auto_map={"AutoModel": "modeling_x.X"})
    if kind == "llada":
        _as_llada(folder, model.config)
    if kind.endswith("bd3lm"):
        edit(folder, _name_or_path=f"models/{kind}-v0.1")
    names = ADDED | {"open-dcoder": {MASK: "<M>"}, "dreamon": {EXPAND: "<|expand|>"}}.get(kind, {})
    if kind in BLOCK_KINDS:
        names |= {261: "<|fim_suffix|>", 262: "<|fim_middle|>"}
    if kind == "stable-diffcoder":
        names |= {MASK: "<[MASK_TOKEN]>", 259: "<[fim-prefix]>", 261: "<[fim-suffix]>", 262: "<[fim-middle]>"}
    if kind in ("dream", "dreamon"):
        edit(folder, mask_token_id=MASK)
        write_vocabulary(folder, names)
    else:
        qwen_tokenizer(names).save(str(folder / "tokenizer.json"))
    return MaskedCheckpoint(
        folder=folder,
        reference=model,
        is_shifted=kind in ("open-dcoder", "dream", "dreamon"),
        block_tokens=BLOCK_KINDS.get(kind, 0),
    )


def edit(folder: Path, file: str = "config.json", **changed: Any) -> Path:
    """Changes fields of a JSON file in a folder; None removes one."""
    path = folder / file
    values = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return folder


def _as_llada(folder: Path, config: Any) -> None:
    tensors = {_llada_name(name): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors")
    values = {
        "model_type": "llada", "architectures": ["LLaDAModelLM"], "d_model": config.hidden_size,
        "mlp_hidden_size": config.intermediate_size, "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads, "n_kv_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size - 2, "embedding_size": config.vocab_size,
        "max_sequence_length": config.max_position_embeddings, "rope_theta": config.rope_parameters["rope_theta"],
        "rms_norm_eps": config.rms_norm_eps, "weight_tying": False, "activation_type": "silu", "block_type": "llama",
        "layer_norm_type": "rms", "rope": True, "include_bias": False, "include_qkv_bias": False, "alibi": False,
        "bos_token_id": END, "eos_token_id": END, "mask_token_id": MASK,
        "auto_map": {"AutoModel": "modeling_llada.LLaDAModelLM"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(values))


def _llada_name(name: str) -> str:
    prefix, _, rest = name.removesuffix(".weight").partition("model.layers.")
    if not rest:
        return f"{_LLADA_NAMES[prefix]}.weight"
    number, _, part = rest.partition(".")
    return f"model.transformer.blocks.{number}.{_LLADA_NAMES[part]}.weight"


def vocabulary() -> dict[str, int]:
    """One token a byte, and one of two."""
    return {token: i for i, token in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), "de"])}


def qwen_tokenizer(names: dict[int, str]) -> Tokenizer:
    """A tokenizer with the peculiarities of Qwen's: it normalises, and a mark is an added token that is not special."""
    backend = Tokenizer(BPE(vocab=vocabulary(), merges=[("d", "e")]))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLITS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    for name in names.values():
        is_special = "fim" not in name
        token = AddedToken(name, special=is_special, normalized=False)
        backend.add_special_tokens([token]) if is_special else backend.add_tokens([token])
    return backend


def write_vocabulary(folder: Path, names: dict[int, str]) -> None:
    """Writes the same tokenizer as the files that Dream has."""
    (folder / "vocab.json").write_text(json.dumps(vocabulary()))
    (folder / "merges.txt").write_text("#version: 0.2\nd e\n")
    (folder / "added_tokens.json").write_text(json.dumps({name: token_id for token_id, name in names.items()}))
