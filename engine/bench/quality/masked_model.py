"""A tiny model of masked diffusion that is trained here as published ones are, and the made-up code that it reads.

The model is a Qwen2 of the kind `a2d-qwen2` with one token a byte. It is trained as LLaDA, Dream, Open-dCoder and the
mdlm models of dLLM are: of a window of packed text every token is masked by itself, with a probability that is drawn
evenly from 0 to 1 for each window, and the loss of a masked token is divided by that probability. A window begins and
ends anywhere, and the text has no influence on which tokens are masked.
Text is functions that are made up, of which one in five is held out of training: half of those for calibration, half
for evaluation.
"""

from __future__ import annotations

import json
import random
import sys
import time
import zlib
from collections.abc import Callable
from enum import Enum
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from dgemma_engine.families.checkpoint_facts import CheckpointFacts
from dgemma_engine.families.masked.config import MaskedConfig
from dgemma_engine.families.masked.model import MaskedModel
from dgemma_engine.families.tensor_names import HUGGING_FACE
from dgemma_engine.model.ops import Ops
from dgemma_engine.tools.training.optimization.muon import MuonAdamW, MuonConfig
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import Tensor

ROWS, WINDOW, WARM_STEPS = 16, 128, 50
# Least probability of a mask, as in LLaDA.
LEAST_MASKED = 1e-3
MASK, END = 257, 256
# Their lengths are spread evenly from 1 to 12 letters.
NAMES = (
    "n", "x", "i", "id", "to", "up", "key", "row", "top", "area", "name", "size", "left", "width", "depth", "value",
    "count", "height", "weight", "offset", "balance", "percent", "address", "distance", "quantity", "interval",
    "dimension", "frequency", "threshold", "population", "resolution", "expiration", "temperature", "destination",
    "description", "acceleration", "registration", "notification",
)  # fmt: skip
VERBS = ("get", "make", "find", "check", "update")
BODIES = (
    "    return {a} * 2\n", "    if {a} > 0:\n        return {a}\n", "    y = {a} + 1\n    return y\n",
    "    print({a})\n", "    self.{a} = {a}\n", "    while {a}:\n        yield {a}\n",
)  # fmt: skip
CONFIG: dict[str, Any] = {
    "model_type": "a2d-qwen2", "architectures": ["A2DQwen2LMHeadModel"], "vocab_size": 260, "hidden_size": 96,
    "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
    "max_position_embeddings": 160, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "tie_word_embeddings": True,
    "bos_token_id": END, "eos_token_id": END, "mask_token_id": MASK, "hidden_act": "silu",
}  # fmt: skip


class Split(Enum):
    """What a function is for."""

    EVALUATION = (0,)
    CALIBRATION = (5,)
    TRAINING = (1, 2, 3, 4, 6, 7, 8, 9)


def function(random_: random.Random, split: Split) -> tuple[str, str]:
    """Returns a function, and the name of its argument."""
    while True:
        name = random_.choice(NAMES)
        text = f"def {random_.choice(VERBS)}({name}):\n{random_.choice(BODIES).format(a=name)}"
        if zlib.crc32(text.encode()) % 10 in split.value:
            return text, name


def functions() -> list[str]:
    """Returns every function there can be."""
    return [f"def {verb}({name}):\n{body.format(a=name)}" for verb, name, body in product(VERBS, NAMES, BODIES)]


def hole(random_: random.Random, split: Split) -> tuple[str, str, str]:
    """Returns prefix, middle and suffix: a place where a function repeats its argument, with another function below."""
    text, name = function(random_, split)
    places = [
        place for place in range(text.index(":\n"), len(text) - len(name)) if text.startswith(name, place)
        and not text[place - 1].isalnum() and not text[place + len(name)].isalnum()
    ]  # fmt: skip
    place, below = random_.choice(places), function(random_, Split.TRAINING)[0]
    return text[:place], name, f"{text[place + len(name) :]}\n\n{below}"


def window(random_: random.Random, encode: Callable[[str], list[int]]) -> list[int]:
    """Returns a piece of functions one below the other, none of them held out; it begins and ends anywhere."""
    ids = list[int]()
    skipped = random_.randrange(64)
    while len(ids) < skipped + WINDOW:
        ids += encode(function(random_, Split.TRAINING)[0] + "\n\n")
    return ids[skipped : skipped + WINDOW]


def trained(folder: Path, seconds: float) -> dict[str, Any]:
    """Trains a model, writes its folder, and returns its description; a folder that has one is left as it is."""
    known = folder / "training.json"
    if known.exists():
        return json.loads(known.read_text())
    torch.manual_seed(0)
    random_, config = random.Random(2), MaskedConfig.of_facts(CheckpointFacts.of_config(folder, CONFIG, {}))
    model, backend = MaskedModel(config, Ops.reference()), tokenizer()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
        else:
            torch.nn.init.constant_(parameter, float("norm" in name))
    optimizer = MuonAdamW(model, MuonConfig())
    started, steps, losses = time.process_time(), 0, list[float]()
    while (spent := time.process_time() - started) < seconds:
        ids_BT = torch.tensor([window(random_, lambda text: backend.encode(text).ids) for _ in range(ROWS)])
        # One probability of each sixteenth: their mean is the same in every batch.
        share_B1 = (torch.rand(()) + torch.arange(ROWS)[:, None] / ROWS) % 1 * (1 - LEAST_MASKED) + LEAST_MASKED
        masked_BT = torch.rand(ids_BT.shape) < share_B1
        logits_NV = model.raw_logits(states(model, ids_BT.masked_fill(masked_BT, MASK))[masked_BT])
        weight_N = (1 / share_B1).expand_as(ids_BT)[masked_BT]
        loss = (F.cross_entropy(logits_NV, ids_BT[masked_BT], reduction="none") * weight_N).sum() / ids_BT.numel()
        loss.backward()
        optimizer.step(min(1.0, (steps + 1) / WARM_STEPS, 1.02 - spent / seconds), float(optimizer.gradient_norm()))
        losses = [*losses[-199:], loss.item()]
        steps += 1
        if steps % 200 == 0:
            print(f"{spent:.0f} s, step {steps}: {sum(losses) / len(losses):.3f} nats", file=sys.stderr, flush=True)
    write(model, folder)
    about = {
        "model": "trained here", "training_s": seconds, "training_steps": steps,
        "last_loss": round(sum(losses) / len(losses), 4), "config": CONFIG,
    }  # fmt: skip
    known.write_text(json.dumps(about))
    return about


def states(model: MaskedModel, ids_BT: Tensor) -> Tensor:
    """Returns the states of rows that each see all of themselves, [B, T, D]."""
    ops, x_BTD = Ops.reference(), model.embed(ids_BT)
    rotary = model.rotary_of(torch.arange(ids_BT.shape[1])[None])

    def attend(_layer_idx: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return ops.attention(q, k, v, None)

    for layer in model.layers:
        x_BTD = layer(x_BTD, rotary, attend)
    return model.norm(x_BTD)


def write(model: MaskedModel, folder: Path) -> None:
    """Writes a Hugging Face folder."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        keys = HUGGING_FACE.keys(name)
        parts = parameter.detach().chunk(len(keys))
        tensors |= {key: part.contiguous() for key, part in zip(keys, parts, strict=True)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tokenizer().save(str(folder / "tokenizer.json"))


def tokenizer() -> Tokenizer:
    """Returns a tokenizer with one token a byte, an end and a mask."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>", "<|mask|>"])
    return backend
