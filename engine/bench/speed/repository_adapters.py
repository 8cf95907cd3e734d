"""What a repository's adapter costs beside the model: per token and passage, at its first use, and to switch.

The model answers as it is, and with the adapters of two repositories, whose factors are random numbers of the rank that
`tune` trains: their values do not change what is computed. Passes take turns, so that a change of the machine's speed
affects all of them; processor time is compared, which is independent of other processes. The user's own adapters are
not read.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record
import torch
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.families.checkpoint_facts import read_facts
from dgemma_engine.families.llama.adapter import Adapters, factor_shapes, fingerprint
from dgemma_engine.families.llama.config import LlamaConfig
from dgemma_engine.infill.engine import Engine
from dgemma_engine.model.kv_cache import PromptCache
from dgemma_engine.model.model_adapter import ModelAdapter
from dgemma_engine.repository_adapters.about import About, HeldOutFigures
from dgemma_engine.repository_adapters.store import AdapterStore
from dgemma_engine.tools.adaptation.adapter_writer import write_adapter

PROMPT_TOKENS, PASSAGE_TOKENS = 512, 64
FIGURES = HeldOutFigures(num_holes=1, rest=None, line=None, edit_similarity=0.0, precision_shown=None, shown=0.0)


def main() -> None:
    """Runs the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--rank", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store, roots = AdapterStore(folder=Path(folder) / "adapters"), [Path(folder) / name for name in ("one", "two")]
        base = model_folder("small")
        for seed, root in enumerate(roots):
            install(store, base, root, rank=args.rank, seed=seed)
        result = measured(base, store, [str(root / "src") for root in roots], args.rounds)
    record.write("repository_adapters", {"rank": args.rank, **result}, args.out)


def install(store: AdapterStore, base: Path, root: Path, *, rank: int, seed: int) -> None:
    """Installs an adapter of random factors."""
    merged = Adapters.find(base).causal
    facts = read_facts(base)
    assert merged is not None and facts.gguf is not None
    shapes = factor_shapes(LlamaConfig.from_gguf(facts.gguf), rank, merged.tokens)
    generator = torch.Generator().manual_seed(seed)
    factors = {name: 0.01 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    sha256 = fingerprint(base)
    with tempfile.TemporaryDirectory() as folder:
        written = write_adapter(
            factors, Path(folder), stage="causal", base_sha256=sha256, tokens=merged.tokens, provenance={}
        )
        about = About(
            root=str(root),
            base_name=base.name,
            base_sha256=sha256,
            merged_sha256=fingerprint(merged.path),
            created=datetime.now(UTC).isoformat(),
            minutes=0.0,
            holes=0,
            before=FIGURES,
            after=FIGURES,
        )
        store.install(about, adapter=written.read_bytes(), calibration=None)


@torch.inference_mode()
def measured(base: Path, store: AdapterStore, folders: Sequence[str], rounds: int) -> dict[str, object]:
    """Returns the medians of a model without and with adapters."""
    engine = Engine.load(base, device="cpu", report=lambda _percent, _message: None, adapters=store)
    model, adapters = engine._model, engine._adapters  # pyright: ignore[reportPrivateUsage]
    assert adapters is not None
    choose = adapters.choose
    first_use_ms, loaded = list[float](), list[ModelAdapter]()
    for folder in folders:
        began_s = time.perf_counter()
        adapter = choose(folder).model_adapter
        first_use_ms.append((time.perf_counter() - began_s) * 1e3)
        assert adapter is not None
        loaded.append(adapter)
    choose_ms = [timed(lambda folder=folder: choose(folder)) for _ in range(rounds) for folder in folders]
    ids_1T = torch.randint(1_000, 40_000, (1, PROMPT_TOKENS), generator=torch.Generator().manual_seed(0))
    caches: dict[str, PromptCache] = {}
    for name, adapter in {"base": None, "one": loaded[0], "two": loaded[1]}.items():
        caches[name] = PromptCache(
            model.config, capacity=PROMPT_TOKENS + 512, dtype=model.dtype, device=model.device, adapter=adapter
        )
        model.prefill(ids_1T, caches[name])
    times: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds):
        for num_tokens in (1, PASSAGE_TOKENS) if number % 4 == 0 else (1,):
            for name, cache in caches.items():
                spent_ms = timed(lambda cache=cache, num=num_tokens: model.encode(ids_1T[:, :num], cache))
                cache.truncate(PROMPT_TOKENS)
                times.setdefault((name, num_tokens), []).append(spent_ms)
    token, passage = ({name: statistics.median(times[name, num][2:]) for name in caches} for num in (1, PASSAGE_TOKENS))
    return {
        "model": engine.model_name,
        "number_format": engine.number_format,
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "prompt_tokens": PROMPT_TOKENS,
        "passage_tokens": PASSAGE_TOKENS,
        "adapter_mib": round(loaded[0].num_bytes / 2**20, 1),
        "first_use_ms": round(max(first_use_ms), 1),
        "choose_ms": round(statistics.median(choose_ms), 3),
        "choose_most_ms": round(max(choose_ms), 2),
        "target_switch_ms": 30,
        "base_token_ms": round(token["base"], 2),
        "adapter_token_ms": round(token["one"], 2),
        # The pass before it used the other adapter.
        "switched_token_ms": round(token["two"], 2),
        "ratio_token": round(token["one"] / token["base"], 3),
        "base_passage_ms": round(passage["base"], 1),
        "adapter_passage_ms": round(passage["one"], 1),
        "ratio_passage": round(passage["one"] / passage["base"], 3),
    }


def timed(work: Callable[[], object]) -> float:
    """Returns the milliseconds of processor time that some work takes."""
    began_s = time.process_time()
    work()
    return (time.process_time() - began_s) * 1e3


if __name__ == "__main__":
    main()
