"""Adapters of repositories in the engine: answers of the merged model, several of one base, one sentence per fault."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pytest
import torch
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.checkpoint.calibration import Calibration, Provenance, fingerprint
from dgemma_engine.checkpoint.features import NAMES
from dgemma_engine.families.llama.adaptation import merge
from dgemma_engine.families.llama.adapter import Adapter
from dgemma_engine.families.llama.model import LlamaModel
from dgemma_engine.families.llama.packed_model import PackedLlama
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.infill.engine import Engine
from dgemma_engine.infill.options import InfillOptions
from dgemma_engine.model.ops import Ops
from dgemma_engine.protocol.messages import AdapterUse, Context, Infill
from dgemma_engine.repository_adapters.store import AdapterStore
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tokenization.tokenizer import Tokenizer
from dgemma_kernels.packing.few_bits import DENSE
from torch import Tensor

from tests.installed_adapters import install_adapter
from tests.llama_checkpoints import make_llama

CPU = torch.device("cpu")
PREFIXES = ("def f(a):\n    return a.", "class A:\n    def g(self):\n        x = [", "import os\nprint(")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=2_048).gguf


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(folder=tmp_path / "adapters")


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "one", tmp_path / "two"]
    for root in made:
        (root / "src").mkdir(parents=True)
    return made


@pytest.fixture(autouse=True)
def letters_only(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Allows letters only: other tokens of random weights seldom form a text, and would be dropped."""
    tokenizer = Tokenizer.load(base.parent)
    barred_V = torch.ones(288, dtype=torch.bool)
    barred_V[[token_id for letter in ascii_lowercase for token_id in tokenizer.encode(letter)]] = False
    for kind in (PackedLlama, LlamaModel):

        def raw_logits(model: Any, hidden_ND: Tensor, plain: Any = kind.raw_logits) -> Tensor:
            return plain(model, hidden_ND).masked_fill(barred_V, -1e4)

        monkeypatch.setattr(kind, "raw_logits", raw_logits)


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads in float32: rounding may change a greedy choice between two tokens that are nearly as likely."""
    monkeypatch.setattr("dgemma_engine.families.causal_llama.weight_dtype", lambda _device: torch.float32)
    monkeypatch.setattr("dgemma_engine.families.causal_llama.product_kinds", lambda **_given: DENSE)


def load(path: Path, store: AdapterStore | None = None) -> Engine:
    return Engine.load(path, device="cpu", report=lambda _percent, _message: None, adapters=store)


def never() -> Cancel:
    return Cancel(deadline_s=1e9, clock=lambda: 0.0)


def question(prefix: str, folder: Path | None = None, document: str = "d") -> Context:
    where = "" if folder is None else str(folder)
    return Context(document=document, prefix=prefix, suffix="\n", path="f.txt", max_middle_tokens=12, folder=where)


def ask(engine: Engine, context: Context) -> Infill:
    return engine.infill(context, never(), options=InfillOptions(silence=False))


def comparable(infill: Infill) -> tuple[object, ...]:
    """Returns an answer without its times, its number of encoded tokens and its adapter."""
    return dataclasses.astuple(replace(infill, timings_ms={}, encoded_tokens=0, adapter=AdapterUse()))


def texts(engine: Engine, folder: Path | None = None) -> list[str]:
    return [ask(engine, question(prefix, folder)).text for prefix in PREFIXES]


def merged(base: Path, stored: Path, monkeypatch: pytest.MonkeyPatch, *, packed: bool) -> Engine:
    """An engine whose weights hold the factors."""

    def load_merged(path: Path, ops: Ops, **options: object) -> LlamaModel:
        model = load_llama(path, ops, device=CPU, dtype=torch.float32)
        merge(model, Adapter.read(stored).tensors(model.config), base=model)
        return model

    with monkeypatch.context() as patch:
        patch.setattr("dgemma_engine.families.causal_llama.load_llama", load_merged)
        return load(base)


@pytest.mark.parametrize("packed", [True, False])
def test_answers_are_those_of_the_merged_model(
    base: Path, store: AdapterStore, roots: list[Path], monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    if not packed:
        monkeypatch.setattr("dgemma_engine.families.causal_llama.packs", lambda _device: False)
    stored = [install_adapter(store, base, root, seed=seed) for seed, root in enumerate(roots)]
    engine, plain = load(base, store), load(base)
    assert isinstance(engine._model, PackedLlama) is packed
    expected = [texts(plain), *(texts(merged(base, one.path, monkeypatch, packed=packed)) for one in stored)]
    assert len({tuple(one) for one in expected}) == 3, "the adapters change what is written"
    # Requests with either adapter and with none, in turn: reused keys of another adapter would change the text.
    for i, prefix in enumerate(PREFIXES):
        for folder, answers in zip((None, roots[0] / "src", roots[1]), expected, strict=True):
            infill = ask(engine, question(prefix, folder))
            assert infill.text == answers[i]
            root = "" if folder is None else str(folder).removesuffix("/src")
            assert infill.adapter == AdapterUse(root=root)
    assert engine.adapters == {str(root): "" for root in roots}


def test_without_an_adapter_nothing_changes(base: Path, store: AdapterStore, roots: list[Path]) -> None:
    install_adapter(store, base, roots[0])
    plain, engine = load(base), load(base, store)
    for prefix in PREFIXES:
        ask(engine, question(prefix, roots[0]))
        for folder in (None, roots[1]):
            assert comparable(ask(engine, question(prefix, folder))) == comparable(ask(plain, question(prefix)))


def test_adapter_switches_on_one_document_between_two_keys(base: Path, store: AdapterStore, roots: list[Path]) -> None:
    engine, fresh = load(base, store), load(base, store)
    before = ask(engine, question(PREFIXES[0], roots[0]))
    assert before.adapter == AdapterUse()
    install_adapter(store, base, roots[0])
    typed = question(PREFIXES[0] + "b", roots[0])
    answer = ask(engine, typed)
    assert answer.adapter == AdapterUse(root=str(roots[0]))
    # The prompt that was encoded without the adapter is not reused.
    assert comparable(answer) == comparable(ask(fresh, typed))
    install_adapter(store, base, roots[0], seed=5)
    assert comparable(ask(engine, typed)) == comparable(ask(load(base, store), typed)) != comparable(answer)


def calibration(base: Path, threshold: float, **changed: object) -> bytes:
    made = Calibration(
        fingerprint=fingerprint(base),
        length_bias=(),
        prior_weight=1.0,
        weights=tuple((name, 0.0) for name in NAMES),
        intercept=0.0,
        threshold=threshold,
        provenance=Provenance(date="2026-01-31", commit="", num_files=9, num_holes=90, file_share=0.5),
    )
    values = dataclasses.asdict(made) | {"weights": dict(made.weights or ())} | changed
    return json.dumps(values).encode()


@pytest.mark.parametrize(("threshold", "is_shown"), [(0.4, True), (0.6, False)])
def test_calibration_of_the_adapter_decides_what_is_shown(
    base: Path, store: AdapterStore, roots: list[Path], threshold: float, is_shown: bool
) -> None:
    install_adapter(store, base, roots[0], calibration=calibration(base, threshold))
    engine = load(base, store)
    infill = engine.infill(question(PREFIXES[0], roots[0]), never())
    # With weights of 0 the probability of every candidate is one half.
    assert (infill.text != "") is is_shown and infill.score == (0.5 if is_shown else 0.0)
    assert infill.adapter == AdapterUse(root=str(roots[0]))
    assert engine.infill(question(PREFIXES[0], roots[1]), never()).score not in (0.0, 0.5)


def off(store: AdapterStore, base: Path, root: Path) -> None:
    install_adapter(store, base, root)
    store.enable(root, enabled=False)


def of_another_base(store: AdapterStore, base: Path, root: Path) -> None:
    install_adapter(store, base, root, base_sha256="0" * 64)


def merged_before(store: AdapterStore, base: Path, root: Path) -> None:
    install_adapter(store, base, root, merged_sha256="0" * 64)


def truncated(store: AdapterStore, base: Path, root: Path) -> None:
    path = install_adapter(store, base, root).path
    path.write_bytes(path.read_bytes()[:-100])


def lost(store: AdapterStore, base: Path, root: Path) -> None:
    install_adapter(store, base, root).path.unlink()


def bad_calibration(store: AdapterStore, base: Path, root: Path) -> None:
    install_adapter(store, base, root, calibration=calibration(base, 0.1, intercept="x"))


def of_another_model(store: AdapterStore, base: Path, root: Path) -> None:
    install_adapter(store, base, root, calibration=calibration(base, 0.1, fingerprint="f" * 64))


def bad_about(store: AdapterStore, base: Path, root: Path) -> None:
    (install_adapter(store, base, root).folder.parent / "about.json").write_text("{}")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (off, "is off; turn it on: dgemma-engine adapters on"),
        (of_another_base, "it was trained on another model than model.gguf"),
        (merged_before, "it was trained on another model than model.gguf"),
        (truncated, "cannot be read"),
        (lost, "cannot be read"),
        (bad_calibration, "intercept='x' must be"),
        (of_another_model, "belongs to another model"),
        (bad_about, "is not of version"),
    ],
)
def test_adapter_that_cannot_be_used_is_left_out_and_reported_in_one_sentence(
    base: Path,
    store: AdapterStore,
    roots: list[Path],
    spoil: Callable[[AdapterStore, Path, Path], None],
    sentence: str,
) -> None:
    spoil(store, base, roots[0])
    engine = load(base, store)
    for prefix in PREFIXES[:2]:
        infill = ask(engine, question(prefix, roots[0]))
        assert comparable(infill) == comparable(ask(engine, question(prefix, document="other")))
        assert infill.adapter.root == str(roots[0])
        assert sentence in infill.adapter.fault and "\n" not in infill.adapter.fault
        assert engine.adapters == {infill.adapter.root: infill.adapter.fault}
    install_adapter(store, base, roots[0])
    # The fault is gone before the next request.
    assert engine.adapters == {str(roots[0]): ""}
    assert ask(engine, question(PREFIXES[0], roots[0])).adapter == AdapterUse(root=str(roots[0]))


def test_status_reports_the_present_state_of_an_adapter(base: Path, store: AdapterStore, roots: list[Path]) -> None:
    root = str(roots[0])
    stored = install_adapter(store, base, roots[0])
    engine = load(base, store)
    ask(engine, question(PREFIXES[0], roots[0] / "src"))
    assert engine.adapters == {root: ""}
    store.enable(roots[0], enabled=False)
    assert "is off; turn it on" in engine.adapters[root]
    store.enable(roots[0], enabled=True)
    assert engine.adapters == {root: ""}
    store.remove(roots[0])
    assert "was removed; train it anew" in engine.adapters[root]
    install_adapter(store, base, roots[0])
    assert engine.adapters == {root: ""}
    # The `about.json` of an adapter that was found from a subfolder is damaged, and repaired.
    about = stored.folder.parent / "about.json"
    text = about.read_text()
    about.write_text("{")
    assert ask(engine, question(PREFIXES[0], roots[0] / "src")).adapter.root == root
    assert engine.adapters.keys() == {root} and "cannot be used" in engine.adapters[root]
    about.write_text(text)
    assert engine.adapters == {root: ""}
    roots[0].rename(roots[0].with_name("moved"))
    assert engine.adapters == {}


def test_file_that_is_repaired_in_place_is_read_again(base: Path, store: AdapterStore, roots: list[Path]) -> None:
    stored = install_adapter(store, base, roots[0])
    whole = stored.path.read_bytes()
    stored.path.write_bytes(whole[:-100])
    os.utime(stored.path, ns=(1, 1))
    engine = load(base, store)
    assert "cannot be read" in ask(engine, question(PREFIXES[0], roots[0])).adapter.fault
    stored.path.write_bytes(whole)
    assert engine.adapters == {str(roots[0]): ""}
    assert ask(engine, question(PREFIXES[0], roots[0])).adapter == AdapterUse(root=str(roots[0]))


def test_removed_adapter_is_not_reported_where_an_outer_one_applies(
    base: Path, store: AdapterStore, roots: list[Path]
) -> None:
    inner = roots[0] / "src"
    install_adapter(store, base, roots[0])
    install_adapter(store, base, inner, seed=1)
    engine = load(base, store)
    ask(engine, question(PREFIXES[0], inner))
    store.remove(inner)
    assert ask(engine, question(PREFIXES[0], inner)).adapter == AdapterUse(root=str(roots[0]))
    assert engine.adapters == {str(roots[0]): ""}


def test_adapter_removed_while_the_engine_runs_is_reported(base: Path, store: AdapterStore, roots: list[Path]) -> None:
    install_adapter(store, base, roots[0])
    engine = load(base, store)
    assert ask(engine, question(PREFIXES[0], roots[0])).adapter.fault == ""
    store.remove(roots[0])
    gone = ask(engine, question(PREFIXES[0], roots[0] / "src"))
    assert gone.adapter.root == str(roots[0]) and "was removed; train it anew" in gone.adapter.fault
    assert comparable(gone) == comparable(ask(engine, question(PREFIXES[0])))
    assert ask(engine, question(PREFIXES[0], roots[1])).adapter == AdapterUse()


def test_more_adapters_than_stay_in_memory_all_answer(base: Path, store: AdapterStore, tmp_path: Path) -> None:
    many = [tmp_path / f"r{i}" for i in range(10)]
    for seed, root in enumerate(many):
        install_adapter(store, base, root, seed=seed)
    engine = load(base, store)
    first = [texts(engine, root) for root in many]
    assert [texts(engine, root) for root in many] == first
    assert len(engine._adapters._loaded.items()) == 8  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("folder", ["/\ud800", "/" + "a" * 5_000, "/a/../../..", "//x"])
def test_odd_folder_has_no_adapter(base: Path, store: AdapterStore, roots: list[Path], folder: str) -> None:
    install_adapter(store, base, roots[0])
    assert load(base, store)._choice(folder).use == AdapterUse()


def test_adapter_of_a_model_in_a_folder_is_reported_as_unusable(
    store: AdapterStore, roots: list[Path], base: Path
) -> None:
    install_adapter(store, base, roots[0])
    engine = load(base.parent, store)
    fault = ask(engine, question(PREFIXES[0], roots[0])).adapter.fault
    assert "adapters are for GGUF files" in fault


def test_model_without_adapters_is_named_by_its_short_name(store: AdapterStore, roots: list[Path], base: Path) -> None:
    install_adapter(store, base, roots[0], base_name="SmolLM2-135M-Instruct.Q4_1.gguf")
    fault = ask(load(model_folder("tiny"), store), question(PREFIXES[0], roots[0])).adapter.fault
    assert fault.endswith("the model tiny takes no adapters; choose small")
