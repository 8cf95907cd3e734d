"""What a change to the configuration of `tiny` is worth: each variant trained with the same small number of tokens.

Every variant is trained from random weights on the same corpus. Time is counted in tokens, so that a busy machine
changes nothing but `ms_per_1000_tokens`. A few hundred thousand tokens show which variant learns faster at first, not
where each would end. Losses compare only among variants that make batches of holes in the same way: slot sizes, suffix
tokens and noise draws also change which holes are held out.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
import torch
from dgemma_engine.tools.training.data.training_data import CorpusData
from dgemma_engine.tools.training.train_config import TrainConfig
from dgemma_engine.tools.training.trainer import Trainer

CONFIGS = record.HERE.parent / "dgemma_engine/tools/training/configs"
S, F = "sliding_attention", "full_attention"
# Seconds of the trainer's clock that a token takes.
TOKEN_S = 1e-3

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "as configured": {},
    "4 layers": {"model": {"layer_types": [S, F, S, F]}},
    "384 wide": {"model": {"hidden_size": 384}},
    "8 experts of half the size": {"model": {"num_experts": 8, "moe_intermediate_size": 128}},
    "2 experts, both chosen": {"model": {"num_experts": 2}},
    "one slot size": {"format": {"slot_sizes": [64]}},
    "nine slot sizes": {"format": {"slot_sizes": [4, 8, 12, 16, 24, 32, 48, 64, 96]}},
    "8 suffix tokens in the canvas": {"format": {"suffix_head_tokens": 8}},
    "2 noise draws per hole": {"data": {"canvases_per_hole": 2}},
    "causal loss in full": {"loss": {"causal_weight": 1.0}},
    "never self-conditioned": {"loss": {"self_conditioned_share": 0.0}},
    "no balance loss": {"loss": {"balance_weight": 0.0}},
}


def main() -> None:
    """Trains and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="made by `dgemma-engine corpus`")
    parser.add_argument("--config", type=Path, default=CONFIGS / "embedded.toml")
    parser.add_argument("--tokens", type=int, default=300_000, help="prompt and canvas tokens of each variant")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), metavar="NAME")
    record.add_destination(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    base = tomllib.loads(args.config.read_text(encoding="utf-8"))
    rows: dict[str, dict[str, float]] = {}
    for name in args.variants:
        rows[name] = trained(changed(base, VARIANTS[name]), args.corpus, args.tokens)
        print(f"{name:32} {rows[name]}", flush=True)
    result = {"config": args.config.name, "tokens": args.tokens, "variants": rows}
    record.write("ablations", result, args.out)


def changed(base: dict[str, Any], overrides: dict[str, dict[str, Any]]) -> TrainConfig:
    """Returns the configuration with the keys of `overrides` replaced, evaluated once, at the end."""
    values = copy.deepcopy(base)
    for table, keys in overrides.items():
        values[table] |= keys
    canvas = max(values["format"]["slot_sizes"]) + values["format"]["suffix_head_tokens"]
    values["model"]["canvas_length"] = max(canvas, values["model"]["canvas_length"])
    # A short run needs many small steps.
    values["data"]["batch_tokens"], values["schedule"]["warmup_steps"] = 2_048, 20
    values["run"] |= {"save_minutes": 1e9, "evaluate_minutes": 1e9}
    return TrainConfig.from_dict(values)


def trained(config: TrainConfig, corpus: Path, tokens: int) -> dict[str, float]:
    """Trains one variant; returns its size, speed and held-out losses in nats."""
    with tempfile.TemporaryDirectory() as folder:
        trainers: list[Trainer] = []
        trainer = Trainer(
            config, data=CorpusData(corpus, config), out=Path(folder), device=torch.device("cpu"),
            clock=lambda: trainers[0].tokens * TOKEN_S, report=lambda _line: None,
        )  # fmt: skip
        trainers.append(trainer)
        started = time.process_time()
        trainer.run(tokens * TOKEN_S / 60)
        seconds = time.process_time() - started
    last = trainer.curves.evaluations[-1]
    return {
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "tokens": trainer.tokens,
        "ms_per_1000_tokens": round(1e6 * seconds / trainer.tokens, 1),
        "slot": round(last.slot, 4),
        "slot_full_noise": round(last.slot_full_noise, 4),
        "causal": round(last.causal, 4),
    }


if __name__ == "__main__":
    main()
