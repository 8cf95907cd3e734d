"""Both families on a processor against `transformers`: same weights, same work, in turn in one process.

A Llama of the dimensions of SmolLM2-135M, from a GGUF file or with random weights: a left-to-right token after 512
cached ones, a pass of 48 positions over them in both directions, and a cold prompt of 512 tokens with its first token.
DiffusionGemma: what `warm.py` measures of the embedded model. `transformers` runs in float32 and in bfloat16 with its
own cache, and the faster of the two counts; ours runs in the format that it chose for this processor.

With `--llama-cpp`, llama.cpp's `llama-bench` (Debian: llama.cpp-tools) measures the same file beside it: a token and 48
tokens after 512 cached ones, from left to right, and a prompt of 512; the least of its samples, in wall-clock time.

With `--instruction-sets` the comparison is made once more, in fewer rounds, with each of the sets that `make test-isa`
knows and this processor has: the libraries of both sides are kept from better instructions.

With one thread processor time is measured, which is independent of other processes; with several threads wall-clock
time. The last line is the result: `ratio_to_transformers` is the smallest warm ratio of the two families.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies
sys.path.insert(0, str(Path(__file__).parent))  # `warm`
sys.path.insert(0, str(Path(__file__).parents[3]))  # and the tests' instruction sets

import record
import torch
import warm
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.families.causal_llama import LlamaFamily
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.family import LoadOptions
from dgemma_engine.families.llama.layers import LlamaLayer
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.model.diffusion_model import DiffusionModel
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.ops import Ops
from dgemma_engine.model_store.catalogue import TINY

from tests.instruction_sets import SETS, processor_flags

PROMPT_TOKENS, CANVAS, PIECE_TOKENS = 512, 48, 256
# Tokens that llama.cpp writes in a sample.
_WRITTEN = 16
# Without bfloat16 instructions one round of `transformers` in that format takes half a minute.
_FEW_ROUNDS = 4
SMOLLM2_135M = {
    "vocab_size": 49_152, "hidden_size": 576, "intermediate_size": 1_536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8_192, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True, "rope_theta": 100_000.0,
}  # fmt: skip


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--llama", type=Path, help="a GGUF file of a Llama; default: random weights")
    parser.add_argument("--instruction-sets", action="store_true", help="once more with those of other processors")
    parser.add_argument("--llama-cpp", type=Path, metavar="PATH", help="llama-bench of llama.cpp; needs --llama")
    args = parser.parse_args()
    if args.llama_cpp is not None and args.llama is None:
        parser.error("--llama-cpp needs --llama, a GGUF file")
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(prefix="dgemma-") as folder:
        plain = exported(args.llama, Path(folder)) if args.llama else random_llama(Path(folder))
        llama = measured(args.llama or plain, plain, args.rounds)
    llama["weights"] = args.llama.name if args.llama else "random"
    if args.llama_cpp is not None:
        llama["llama_cpp"] = llama_cpp(args.llama_cpp, args.llama, args.threads)
    gemma = warm.measured(model_folder(TINY), args.rounds)
    warm_ratios = {
        "llama_token": llama["ratio_token"],
        "llama_canvas": llama["ratio_canvas"],
        "diffusion_gemma": gemma["ratio_unranked_to_transformers_kept"],
    }
    cold = {"llama": llama["ratio_cold"], "diffusion_gemma": gemma["ratio_fresh_unranked_to_transformers"]}
    result = {
        "threads": args.threads,
        "llama": llama,
        "diffusion_gemma": gemma,
        "warm_ratios": warm_ratios,
        "cold_ratios": cold,
        "target_warm": 1.5,
        "target_cold": 1.1,
        "cold_ratio_to_transformers": min(cold.values()),
        "ratio_to_transformers": min(warm_ratios.values()),
    }
    if args.instruction_sets:
        result["instruction_sets"] = with_instruction_sets(args.llama, args.threads)
    record.write("cpu", result, args.out)


def with_instruction_sets(llama: Path | None, threads: int) -> dict[str, dict[str, Any]]:
    """Returns the ratios of this benchmark with fewer instructions, each in a process of its own."""
    found: dict[str, dict[str, Any]] = {}
    for name, each in SETS.items():
        if not each.environ or (each.flag and each.flag not in processor_flags()):
            continue
        with tempfile.TemporaryDirectory(prefix="dgemma-") as folder:
            command = [
                sys.executable,
                __file__,
                "--rounds",
                str(_FEW_ROUNDS),
                "--threads",
                str(threads),
                "--out",
                folder,
            ]
            command += ["--llama", str(llama)] if llama else []
            environ = os.environ | dict(each.environ) | {"XDG_CACHE_HOME": folder}
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environ)
            measured = json.loads((Path(folder) / "cpu.json").read_text(encoding="utf-8"))
        found[name] = {key: measured[key] for key in ("ratio_to_transformers", "cold_ratio_to_transformers")}
        found[name] |= {key: measured[key] for key in ("warm_ratios", "cold_ratios")}
        found[name]["ours_format"] = measured["llama"]["ours_format"]
    return found


def llama_cpp(program: Path, gguf: Path, threads: int) -> dict[str, float]:
    """Returns the milliseconds that `llama-bench` takes."""
    common = [str(program), "-m", str(gguf), "-t", str(threads), "-r", "5", "-o", "json"]
    after = ["-d", str(PROMPT_TOKENS), "-p", str(CANVAS), "-n", str(_WRITTEN)]
    cold = ["-p", str(PROMPT_TOKENS), "-n", "0"]
    found: dict[str, float] = {}
    for arguments in (after, cold):
        output = subprocess.run([*common, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout
        for run in json.loads(output):
            name = "token_ms" if run["n_gen"] else "canvas_ms" if run["n_depth"] else "cold_ms"
            found[name] = round(min(run["samples_ns"]) / 1e6 / (run["n_gen"] or 1), 2)
    return found


def random_llama(folder: Path) -> Path:
    """Writes a Llama with random weights; returns its folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SMOLLM2_135M)).save_pretrained(folder)
    return folder


@torch.inference_mode()
def exported(gguf: Path, folder: Path) -> Path:
    """Writes the weights of a GGUF file as `transformers` reads them without another library; returns the folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    ours = load_llama(gguf, Ops.reference(), device=torch.device("cpu"), dtype=torch.float32)
    config = ours.config
    theirs: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            max_position_embeddings=config.max_position_embeddings,
            rms_norm_eps=config.rms_norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=ours.lm_head is None,
        )
    )
    body, kv_size = theirs.model, config.num_key_value_heads * config.head_size
    body.embed_tokens.weight.copy_(ours.embed_tokens.weight)
    body.norm.weight.copy_(ours.norm.weight)
    if ours.lm_head is not None:
        theirs.lm_head.weight.copy_(ours.lm_head.weight)
    for layer, their in zip(ours.layers, body.layers, strict=True):
        assert isinstance(layer, LlamaLayer)
        q, k, v = layer.qkv_proj.weight.split([layer.qkv_proj.out_features - 2 * kv_size, kv_size, kv_size])
        gate, up = layer.gate_up_proj.weight.chunk(2)
        for target, source in (
            (their.self_attn.q_proj.weight, q), (their.self_attn.k_proj.weight, k), (their.self_attn.v_proj.weight, v),
            (their.self_attn.o_proj.weight, layer.o_proj.weight), (their.mlp.gate_proj.weight, gate),
            (their.mlp.up_proj.weight, up), (their.mlp.down_proj.weight, layer.down_proj.weight),
            (their.input_layernorm.weight, layer.input_layernorm.weight),
            (their.post_attention_layernorm.weight, layer.post_attention_layernorm.weight),
        ):  # fmt: skip
            target.copy_(source)
    theirs.save_pretrained(folder)
    return folder


@torch.inference_mode()
def measured(path: Path, plain: Path, rounds: int) -> dict[str, Any]:
    """Returns medians in milliseconds and ratios of a Llama, whose folder for `transformers` is `plain`."""
    started = time.perf_counter()
    device = torch.device("cpu")
    options = LoadOptions(device=device, ops=None, prompt_tokens=PROMPT_TOKENS, report=lambda _percent: None)
    model = LlamaFamily().load_model(read_facts(path), options)
    load_s = time.perf_counter() - started
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(20, model.config.vocab_size, (1, PROMPT_TOKENS), generator=generator)
    runs: dict[str, Callable[[], object]] = {}
    peers = warm.computable(lambda name: GemmaPeer(plain, warm.FORMATS[name], name, prompt), GemmaPeer.canvas)
    for side in (Ours(model, prompt), *peers.values()):
        runs |= {f"{side.name}_{work}": getattr(side, work) for work in ("token", "canvas", "cold")}
    times: dict[str, list[float]] = {name: [] for name in runs}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for number in range(rounds + 2):
        for name, run in runs.items():
            if name.endswith("cold") and number % 3:
                continue
            started = clock()
            run()
            times[name].append((clock() - started) * 1e3)
    # The first rounds make one-time allocations on all sides.
    medians = {name: round(statistics.median(values[1:]), 2) for name, values in times.items()}
    ratios = {
        f"ratio_{work}": round(min(medians[f"{name}_{work}"] for name in peers) / medians[f"ours_{work}"], 2)
        for work in ("token", "canvas", "cold")
    }
    formats = {"ours_format": model.number_format, "load_s": round(load_s, 2)}
    return formats | {f"{name}_ms": value for name, value in medians.items()} | ratios


class Ours:
    """The engine's model."""

    name = "ours"

    def __init__(self, model: DiffusionModel, prompt: torch.Tensor) -> None:
        self._model, self._prompt = model, prompt
        self._cache = self._encoded()

    def token(self) -> None:
        """Reads one token after the prompt and chooses the next."""
        self._model.logits(self._model.encode(self._prompt[:, :1], self._cache)).argmax(-1)
        self._cache.truncate(PROMPT_TOKENS)

    def canvas(self) -> None:
        """Scores a canvas in both directions."""
        self._model.logits(self._model.decode(self._prompt[:, :CANVAS], self._cache)).argmax(-1)

    def cold(self) -> None:
        """Reads the whole prompt and chooses the next token."""
        self._encoded()

    def _encoded(self) -> PromptCache:
        model = self._model
        cache = PromptCache(model.config, capacity=PROMPT_TOKENS + CANVAS + 64, dtype=model.dtype, device=model.device)
        for start in range(0, PROMPT_TOKENS - 1, PIECE_TOKENS):
            model.prefill(self._prompt[:, start : min(start + PIECE_TOKENS, PROMPT_TOKENS - 1)], cache)
        model.logits(model.encode(self._prompt[:, -1:], cache)).argmax(-1)
        return cache


class GemmaPeer:
    """`transformers`, eager, with its own cache."""

    def __init__(self, folder: Path, dtype: torch.dtype, name: str, prompt: torch.Tensor) -> None:
        from transformers import LlamaForCausalLM
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self._model: Any = LlamaForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self.name, self._prompt = name, prompt
        self._cache = self._model(prompt, use_cache=True, logits_to_keep=1).past_key_values
        mask = torch.zeros(1, 1, CANVAS, PROMPT_TOKENS + CANVAS, dtype=dtype)
        self._mask = mask

    def token(self) -> None:
        """Reads one token after the prompt and chooses the next."""
        self._after(self._prompt[:, :1], None)

    def canvas(self) -> None:
        """Scores a canvas in both directions: nothing is masked."""
        self._after(self._prompt[:, :CANVAS], self._mask)

    def cold(self) -> None:
        """Reads the whole prompt and chooses the next token."""
        self._model(self._prompt, use_cache=True, logits_to_keep=1).logits.argmax(-1)

    def _after(self, ids: torch.Tensor, mask: torch.Tensor | None) -> None:
        self._model(ids, past_key_values=self._cache, attention_mask=mask, use_cache=True).logits.argmax(-1)
        self._cache.crop(-ids.shape[1])


if __name__ == "__main__":
    main()
