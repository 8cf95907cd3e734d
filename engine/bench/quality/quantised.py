"""What quantising costs and saves: right answers lost, bytes, errors, and a step with weights packed or expanded.

    python engine/bench/quality/quantised.py HOLES --answers FOLDER

Quantises a plain model to every format. A denoising step is timed in turn for the plain model and for each format in
both residences, in the number format the engine picks. `dgemma-engine eval` then fills the holes of HOLES with the
plain model and with the formats of `--formats`: with the length that the engine finds, with the true one, and once
more with the calibrated threshold; `dgemma-engine compare` pairs each with the plain model, hole by hole.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
import torch
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.checkpoint.loader import Residence, load_model
from dgemma_engine.checkpoint.quantization_presets import Format
from dgemma_engine.diffusion.token_distribution import VocabularyScorer, sample
from dgemma_engine.model.devices import weight_dtype
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model.transformer import DiffusionGemma
from dgemma_engine.model_store.catalogue import TINY
from dgemma_engine.quantization.quantized_linear import PackedExperts, PackedLinear
from dgemma_engine.tools.conversion.converter import REPORT_NAME, quantise_folder
from infilling import evaluated, last_line
from speed.step import in_turn

PROMPT_TOKENS = 180
CANVASES = (32, 96)
PLAIN = "plain"
VARIANTS = {
    "auto": ("--no-silence",),
    "oracle": ("--no-silence", "--length", "oracle"),
    "shown": (),
}


def main() -> None:
    """Runs all measurements; prints the whole result last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("holes", type=Path)
    parser.add_argument("--answers", type=Path, required=True, help="folder for the single answers")
    parser.add_argument("--model", default=TINY)
    parser.add_argument("--formats", nargs="+", default=["int8", "int4"], choices=[form.value for form in Format])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--limit", type=int, help="holes to fill; all by default")
    record.add_destination(parser)
    args = parser.parse_args()
    args.answers.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    plain = model_folder(args.model)
    with tempfile.TemporaryDirectory(prefix="dgemma-") as place:
        folders = {PLAIN: plain}
        for form in Format:
            folders[form.value] = Path(place) / form.value
            quantise_folder(plain, folders[form.value], form, report=lambda _percent: None)
        result: dict[str, Any] = {
            "prompt_tokens": PROMPT_TOKENS,
            "rounds": args.rounds,
            "dtype": str(weight_dtype(torch.device("cpu"))).removeprefix("torch."),
            "file_bytes": {name: file_bytes(folder) for name, folder in folders.items()},
            "errors": {form.value: errors(folders[form.value]) for form in Format},
            **residences(folders, args.rounds),
            "exact_match": {},
            "shown": {},
            "lost": {},
        }
        limit = () if args.limit is None else ("--limit", str(args.limit))
        for name in (PLAIN, *args.formats):
            for variant, options in VARIANTS.items():
                answers = args.answers / f"{name}_{variant}.jsonl"
                figures = evaluated(args.holes, answers, "--model", str(folders[name]), *options, *limit)
                if variant == "shown":
                    result["shown"][name] = {key: figures[key] for key in ("n", "shown_share", "precision_shown")}
                else:
                    result["exact_match"].setdefault(variant, {})[name] = figures["exact_match"]
        for name in args.formats:
            for variant in VARIANTS:
                paths = [str(args.answers / f"{each}_{variant}.jsonl") for each in (PLAIN, name)]
                result["lost"].setdefault(variant, {})[name] = last_line("compare", *paths)
    record.write("quantised", result, args.out)


def file_bytes(folder: Path) -> int:
    """Returns the size of a folder's weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def errors(folder: Path) -> dict[str, Any]:
    """Returns the errors in the folder's report of each kind that was quantised."""
    kinds = json.loads((folder / REPORT_NAME).read_text(encoding="utf-8"))["kinds"]
    keys = ("encoding", "relative_error", "worst_relative_error")
    return {row["kind"]: {key: row[key] for key in keys} for row in kinds if row["worst_matrix"]}


def residences(folders: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Returns bytes of weights in memory and the time of a step, for each canvas, format and residence."""
    with torch.inference_mode():
        models = {
            f"{name} {residence.value}" if name != PLAIN else PLAIN: loaded(folder, residence)
            for name, folder in folders.items()
            for residence in Residence
        }
        return {
            "weight_bytes": {name: weight_bytes(model) for name, model in models.items()},
            "step_ms": {
                f"canvas {canvas}": in_turn({name: step(model, canvas) for name, model in models.items()}, rounds)
                for canvas in CANVASES
            },
        }


def loaded(folder: Path, residence: Residence) -> DiffusionGemma:
    """Loads a folder as the engine would."""
    device = torch.device("cpu")
    return load_model(folder, Ops.reference(), device=device, dtype=weight_dtype(device), residence=residence)


def weight_bytes(model: DiffusionGemma) -> int:
    """Returns the memory of a model's weights; the buffer that packed ones are expanded into is not counted."""
    total = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    for module in model.modules():
        if isinstance(module, PackedLinear):
            total += module.packed.num_bytes
        elif isinstance(module, PackedExperts):
            total += module.gate_up.num_bytes + module.down.num_bytes
    return total


def step(model: DiffusionGemma, num_canvas: int) -> Callable[[], object]:
    """Returns one denoising step after a prompt, as a function to time."""
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(0, model.config.vocab_size, (1, PROMPT_TOKENS), generator=generator)
    canvas = torch.randint(0, model.config.vocab_size, (1, num_canvas), generator=generator)
    cache = PromptCache(model.config, capacity=PROMPT_TOKENS + num_canvas, dtype=model.dtype, device=model.device)
    model.encode(prompt, cache)
    scorer = VocabularyScorer(model, suppressed_ids=torch.tensor([], dtype=torch.int64))
    soft = model.soft_embeddings(scorer.score(model.decode(canvas, cache)[0], 0.7).probs_NV[None])

    def run() -> None:
        distribution = scorer.score(model.decode(canvas, cache, soft_BLD=soft)[0], 0.7)
        sample(distribution.probs_NV, torch.rand(num_canvas, 1))
        model.soft_embeddings(distribution.probs_NV[None])

    return run


if __name__ == "__main__":
    main()
