"""What MLPs in 8 bits cost a Llama: nats a token of source text, and how often its likeliest token stays the same.

    python engine/bench/quality/eight_bits.py [--model small] [--texts 24] [--record]

Texts are pieces of the standard library of the running Python. Compares the same weights in float32, in
bfloat16 and in 8 bits, the latter also with inputs of 7 bits.
"""

from __future__ import annotations

import argparse
import random
import sys
import sysconfig
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
import torch
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.families.causal_llama import LlamaFamily
from dgemma_engine.families.checkpoint_facts import CheckpointFacts, read_facts
from dgemma_engine.families.llama.adaptation import adapt
from dgemma_engine.families.llama.adapter import Adapters
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.families.llama.packed_model import PackedLlama
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_kernels.packing import few_bits
from dgemma_kernels.packing.cpu import PackedMatrix
from dgemma_kernels.packing.few_bits import DENSE, ProductKinds, RowWeights
from torch import Tensor

TOKENS, SKIPPED_CHARACTERS, CHARACTERS = 448, 2_000, 2_400
CPU = torch.device("cpu")
EIGHT_BITS = ProductKinds(row=RowWeights.DENSE, int8_mlp=True)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    record.add_destination(parser)
    parser.add_argument("--model", default="small", help="short name or GGUF file of a Llama")
    parser.add_argument("--texts", type=int, default=24)
    args = parser.parse_args()
    if not PackedMatrix(torch.eye(16), int8=True).few_bits.input_levels:
        parser.error("this processor has no exact products in 8 bits")
    torch.set_num_threads(1)
    facts = read_facts(model_folder(args.model))
    texts = tokens_of(facts, args.texts)
    exact = judged(loaded(facts, torch.float32), texts)
    formats = {
        "float32": exact,
        "bfloat16": judged(PackedLlama(loaded(facts, torch.bfloat16), DENSE), texts),
        "int8": judged(PackedLlama(loaded(facts, torch.bfloat16), EIGHT_BITS), texts),
    }
    few_bits.INPUT_LEVELS = (63,)
    formats["inputs_int7"] = judged(PackedLlama(loaded(facts, torch.bfloat16), EIGHT_BITS), texts)
    result: dict[str, Any] = {
        name: {
            "nats": round(float(nats_N.mean()), 4),
            "same_best": round(float((best_N == exact[1]).double().mean()), 4),
        }
        for name, (nats_N, best_N) in formats.items()
    }
    added, with_int7 = (
        added_to(formats["bfloat16"][0], formats[name][0], len(texts)) for name in ("int8", "inputs_int7")
    )
    result |= {"added": added, "added_inputs_int7": with_int7}
    record.write("eight_bits", {"model": args.model, "tokens": len(exact[0]), **result}, args.out)


def added_to(before_N: Tensor, after_N: Tensor, num_texts: int) -> dict[str, float]:
    """Returns the rise in nats a token, with a 95 % interval over texts: tokens of one text are not independent."""
    pieces = torch.stack([part.mean() for part in (after_N - before_N).chunk(num_texts)])
    mean, error = float(pieces.mean()), 1.96 * float(pieces.std()) / num_texts**0.5
    return {"nats": round(mean, 4), "low": round(mean - error, 4), "high": round(mean + error, 4)}


def tokens_of(facts: CheckpointFacts, num_texts: int) -> list[Tensor]:
    """Returns pieces of as many files, [1, `TOKENS`] each."""
    tokenizer = LlamaFamily().read_tokenizer(facts)
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    random.Random(1).shuffle(files)
    found: list[Tensor] = []
    for path in files:
        text = path.read_text(encoding="utf-8", errors="ignore")[SKIPPED_CHARACTERS:][:CHARACTERS]
        ids = tokenizer.encode(text)[:TOKENS]
        if len(ids) == TOKENS:
            found.append(torch.tensor([ids]))
        if len(found) == num_texts:
            break
    return found


def loaded(facts: CheckpointFacts, dtype: torch.dtype) -> LlamaModel:
    """Returns the model with the adapters that come with it."""
    model = load_llama(facts.path, Ops.reference(), device=CPU, dtype=dtype)
    adapt(model, Adapters.find(facts.path))
    return model


@torch.inference_mode()
def judged(model: DiffusionModel, texts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns nats of each token after a text's first, and the likeliest token there."""
    nats, best = list[Tensor](), list[Tensor]()
    for ids_1T in texts:
        cache = PromptCache(model.config, capacity=TOKENS + 64, dtype=model.dtype, device=CPU)
        logprobs_TV = model.logits(model.encode(ids_1T, cache))[0, :-1].float().log_softmax(-1)
        nats.append(-logprobs_TV.gather(1, ids_1T[0, 1:, None])[:, 0])
        best.append(logprobs_TV.argmax(-1))
    return torch.cat(nats), torch.cat(best)


if __name__ == "__main__":
    main()
