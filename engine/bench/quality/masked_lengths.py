"""Automatic length of a masked diffusion model against the true length, before and after calibration.

    python engine/bench/quality/masked_lengths.py [--minutes M] [--holes N] [--model FOLDER]

A tiny Qwen2 of the kind `a2d-qwen2`, one token a byte, is trained for M minutes of a core on small functions that are
made up, by the authors' objective: some tokens are masked, and each is predicted from all others. Holes are names in
functions of which one in five is held out; a name follows from the text around it, and has 1 to 12 tokens. Each hole of
a held-out function is filled with the true number of masks, with fixed ones, and with the length that the engine finds,
first as it is and then with what `dgemma-engine calibrate` learns from holes of functions that were trained on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
import torch
import torch.nn.functional as F
from dgemma_engine.cli import main as cli
from dgemma_engine.families.checkpoint_facts import CheckpointFacts
from dgemma_engine.families.masked.config import MaskedConfig
from dgemma_engine.families.masked.model import MaskedModel
from dgemma_engine.families.tensor_names import HUGGING_FACE
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.options import InfillOptions
from dgemma_engine.model.ops import Ops
from dgemma_engine.protocol.messages import Context
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tools.training.optimization.muon import MuonAdamW, OptimizerConfig
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import Tensor

ROWS, WARM_STEPS = 32, 50
CALIBRATION_HOLES = 120
MASK, END = 257, 256
FIXED = (4, 8, 16)
# Fill the holes of 1 to 12 letters evenly.
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
    "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "tie_word_embeddings": True,
    "bos_token_id": END, "eos_token_id": END, "mask_token_id": MASK, "hidden_act": "silu",
}  # fmt: skip


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    record.add_destination(parser)
    parser.add_argument("--minutes", type=float, default=8.0, help="of training (default: 8)")
    parser.add_argument("--holes", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--model", type=Path, help="keep the trained model in this folder, or take it from there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = args.model or Path(temporary)
        known = folder / "training.json"
        about = json.loads(known.read_text()) if known.exists() else trained(folder, args.minutes * 60)
        engine = Engine.load(folder, device="cpu", report=lambda _percent, _message: None)
        random_ = random.Random(1)
        holes = [asked(random_, is_held_out=True) for _ in range(args.holes)]
        figures = {f"fixed:{size}": exact(engine, holes, [size] * len(holes)) for size in FIXED}
        figures["oracle"] = exact(engine, holes, [engine.count_tokens(middle) for _, middle, _ in holes])
        figures |= found(engine, holes, "auto, not calibrated")
        figures |= found(calibrated(folder), holes, "auto")
    share = round(figures["auto"] / figures["oracle"], 4) if figures["oracle"] else None
    about |= {"calibration_holes": CALIBRATION_HOLES, "holes": len(holes), "exact": figures, "auto_of_oracle": share}
    record.write("masked_lengths", about, args.out)


def function(random_: random.Random) -> tuple[str, str]:
    """Returns a function, and the name of its argument."""
    name = random_.choice(NAMES)
    return f"def {random_.choice(VERBS)}({name}):\n{random_.choice(BODIES).format(a=name)}", name


def hole(random_: random.Random, *, is_held_out: bool) -> tuple[str, str, str]:
    """Returns prefix, middle and suffix: a place where the body of a function repeats the name."""
    while True:
        text, name = function(random_)
        if (zlib.crc32(text.encode()) % 5 == 0) != is_held_out:
            continue
        places = [
            place for place in range(text.index(":\n"), len(text) - len(name)) if text.startswith(name, place)
            and not text[place - 1].isalnum() and not text[place + len(name)].isalnum()
        ]  # fmt: skip
        if places:
            place = random_.choice(places)
            return text[:place], name, text[place + len(name) :]


def asked(random_: random.Random, *, is_held_out: bool) -> tuple[str, str, str]:
    """Returns a hole with text after it: a blank rest is the end of a file, at which the model saw no middle end."""
    while True:
        parts = hole(random_, is_held_out=is_held_out)
        if parts[2].strip():
            return parts


def trained(folder: Path, seconds: float) -> dict[str, Any]:
    """Trains a model, writes its folder, and returns what is to be told of it."""
    torch.manual_seed(0)
    random_, config = random.Random(2), MaskedConfig.of_facts(CheckpointFacts.of_config(folder, CONFIG, {}))
    model, encode = MaskedModel(config, Ops.reference()), tokenizer().encode
    for name, parameter in model.named_parameters():
        kind = torch.nn.init.normal_ if parameter.ndim > 1 else None
        if kind is not None:
            kind(parameter, std=0.05)
        else:
            torch.nn.init.constant_(parameter, float("norm" in name))
    optimizer = MuonAdamW(model, OptimizerConfig())
    started, steps, losses = time.process_time(), 0, list[float]()
    while (spent := time.process_time() - started) < seconds:
        texts = [hole(random_, is_held_out=False) for _ in range(ROWS)]
        ids = [encode("".join(text)).ids for text in texts]
        length = max(map(len, ids))
        ids_BT = torch.tensor([row + [END] * (length - len(row)) for row in ids])
        masked_BT = torch.rand(ids_BT.shape) < torch.rand(ROWS, 1)
        for row, (prefix, middle, _suffix) in enumerate(texts):
            # In three of four rows a name alone, as in a hole.
            if row % 4:
                start, share = len(encode(prefix).ids), random_.uniform(0.3, 1.2)
                masked_BT[row] = False
                masked_BT[row, start : start + len(middle)] = torch.rand(len(middle)) < share
        masked_BT &= ids_BT != END
        logits_NV = model.raw_logits(states(model, ids_BT.masked_fill(masked_BT, MASK))[masked_BT])
        loss = F.cross_entropy(logits_NV, ids_BT[masked_BT])
        loss.backward()
        optimizer.step(min(1.0, (steps + 1) / WARM_STEPS, 1.02 - spent / seconds), float(optimizer.gradient_norm()))
        losses = [*losses[-99:], loss.item()]
        steps += 1
        if steps % 200 == 0:
            print(f"{spent:.0f} s, step {steps}: {sum(losses) / len(losses):.3f} nats", file=sys.stderr, flush=True)
    write(model, folder)
    about = {
        "model": "trained here", "training_s": seconds, "training_steps": steps,
        "last_loss": round(sum(losses) / len(losses), 4), "config": CONFIG,
    }  # fmt: skip
    (folder / "training.json").write_text(json.dumps(about))
    return about


def states(model: MaskedModel, ids_BT: Tensor) -> Tensor:
    """Returns the states of rows that each see all of themselves, [B, T, D]."""
    ops, x_BTD = Ops.reference(), model.embed(ids_BT)
    rotary = model.rotary_of(torch.arange(ids_BT.shape[1])[None])
    for layer in model.layers:
        x_BTD = layer(x_BTD, rotary, lambda _layer_idx, q, k, v: ops.attention(q, k, v, None))
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
    """Returns one token a byte, an end and a mask."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>", "<|mask|>"])
    return backend


def exact(engine: Engine, holes: list[tuple[str, str, str]], lengths: list[int]) -> float:
    """Returns the share of holes whose answer is right with as many masks as `lengths` say."""
    right = 0
    for (prefix, middle, suffix), length in zip(holes, lengths, strict=True):
        options = InfillOptions(slot_tokens=length + 1, seeds=False, silence=False)
        # One more: the prefix gives up its last token, which the middle spells again.
        right += engine.infill(context(prefix, suffix), never(), options=options).text == middle
    return round(right / len(holes), 4)


def found(engine: Engine, holes: list[tuple[str, str, str]], name: str) -> dict[str, float]:
    """Returns the shares that are right with the length found: the first candidate, and any."""
    first = among = 0
    for prefix, middle, suffix in holes:
        ranked = engine.ranked(context(prefix, suffix), never(), options=InfillOptions(seeds=False))
        texts = [one.proposal.text for one in ranked]
        first += texts[:1] == [middle]
        among += middle in texts
    return {name: round(first / len(holes), 4), f"{name}, among the candidates": round(among / len(holes), 4)}


def calibrated(folder: Path) -> Engine:
    """Calibrates a copy of a model on holes of functions that it was trained on, and returns its engine."""
    random_ = random.Random(3)
    with tempfile.TemporaryDirectory() as temporary:
        copy, holes = Path(temporary) / "model", Path(temporary) / "holes.jsonl"
        shutil.copytree(folder, copy)
        with holes.open("w") as file:
            for number in range(CALIBRATION_HOLES):
                prefix, middle, suffix = asked(random_, is_held_out=False)
                task = {"task_id": str(number), "kind": "rest", "path": f"{number}.py", "language": "python"}
                file.write(json.dumps(task | {"prefix": prefix, "middle": middle, "suffix": suffix}) + "\n")
        with contextlib.redirect_stdout(sys.stderr):
            assert cli(["calibrate", str(copy), str(holes), "--holes", str(CALIBRATION_HOLES), "--device", "cpu"]) == 0
        return Engine.load(copy, device="cpu", report=lambda _percent, _message: None)


def context(prefix: str, suffix: str) -> Context:
    """Returns a question."""
    return Context(document="d", prefix=prefix, suffix=suffix, path="f.py", language="python", max_middle_tokens=32)


def never() -> Cancel:
    """Returns time without end."""
    return Cancel(deadline_s=1e9, clock=lambda: 0.0)


if __name__ == "__main__":
    main()
