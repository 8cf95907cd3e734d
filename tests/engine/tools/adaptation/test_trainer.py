from __future__ import annotations

import errno
import gzip
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dgemma_engine.cli import main
from dgemma_engine.errors import TrainingError, WrongUsage
from dgemma_engine.families.llama.adaptation import adapt
from dgemma_engine.families.llama.adapter import Adapter, Adapters
from dgemma_engine.families.llama.weights import load_llama
from dgemma_engine.model.ops import Ops
from dgemma_engine.tools.adaptation.config import AdaptConfig, OptimizerConfig
from dgemma_engine.tools.adaptation.progress import CURVE
from dgemma_engine.tools.adaptation.samples import Sample, SampleDrawer
from dgemma_engine.tools.adaptation.trainer import AdaptTrainer
from dgemma_engine.tools.corpus.source_lines import write_corpus
from dgemma_engine.tools.training.checkpoint import STATE

from tests.engine.tools.adaptation.conftest import HELD_OUT, MakeTrainer, source
from tests.llama_checkpoints import make_llama, make_qwen2, write_adapter

FILES = (STATE, "causal.safetensors", CURVE)


def after_steps(trainer: AdaptTrainer, num_steps: int) -> AdaptTrainer:
    """Runs until `num_steps` steps are made in total."""
    trainer.run(1e6, interrupted=lambda: trainer.progress.step >= num_steps)
    return trainer


def test_loss_of_held_out_packages_falls(make_trainer: MakeTrainer) -> None:
    trainer = after_steps(make_trainer(), 40)
    trainer.run(1e-9)
    first, last = trainer.progress.base["beside"], trainer.progress.curve[-1]["held_out"]
    assert last["middle"] < 0.8 * first["middle"] and last["end"] < 0.8 * first["end"]
    assert {"line", "rest", "python", "go", "token 0", "token 1", "token 2", "later"} <= last.keys()
    losses = [point["loss"] for point in trainer.progress.curve if "loss" in point]
    assert losses[-1] < 0.8 * losses[0]


def test_resumed_run_makes_the_steps_of_an_uninterrupted_one(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """The interruption is between two merges, after saves and evaluations."""
    whole = after_steps(make_trainer(), 7)
    after_steps(make_trainer(out=tmp_path / "parts"), 3)
    resumed = make_trainer(out=tmp_path / "parts")
    resumed.resume()
    after_steps(resumed, 7)
    for name, tensor in whole.base.factors.items():
        assert torch.equal(tensor, resumed.base.factors[name]), name
    assert resumed.progress.holes == whole.progress.holes
    files = [(tmp_path / folder / "causal.safetensors") for folder in ("run", "parts")]
    mine, theirs = (Adapter.read(path).tensors(whole.base.plain.config) for path in files)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / CURVE).read_text().splitlines()]
    assert steps == sorted(steps) and steps[0] == 0 and steps[-1] == 7


def test_prefetching_threads_change_no_step(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    alone, helped = after_steps(make_trainer(), 3), after_steps(make_trainer(out=tmp_path / "helped", num_workers=2), 3)
    assert all(torch.equal(tensor, helped.base.factors[name]) for name, tensor in alone.base.factors.items())


def test_file_holds_the_average_and_its_provenance(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    decay = OptimizerConfig(rate=2e-2, average_decay=0.0)
    trainer = after_steps(make_trainer(optimizer=decay), 4)
    adapter = Adapter.read(tmp_path / "run" / "causal.safetensors")
    assert (adapter.base_sha256, adapter.rank, adapter.tokens.end, adapter.tokens.name) == (
        trainer.base.sha256,
        4,
        0,
        6,
    )
    for name, tensor in adapter.tensors(trainer.base.plain.config).items():
        exact = trainer.base.factors[name]
        assert ((tensor - exact).abs().amax(1) <= exact.abs().amax(1) / 127).all(), name
    from safetensors import safe_open

    with safe_open(adapter.path, "pt") as file:
        made: dict[str, Any] = json.loads(file.metadata()["provenance"])
    assert made["holes"] == trainer.progress.holes > 0
    assert made["training"]["run"] == {"seed": 0}
    assert {"commit", "minutes", "date", "base"} <= made.keys()


def test_held_out_package_is_never_trained_on(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, draw = list[str](), SampleDrawer.draw

    def noting(drawer: SampleDrawer, *arguments: Any, **options: Any) -> Sample:
        sample = draw(drawer, *arguments, **options)
        drawn.append(sample.package)
        return sample

    monkeypatch.setattr(SampleDrawer, "draw", noting)
    trainer = make_trainer()
    assert drawn and set(drawn) <= set(HELD_OUT.values())
    drawn.clear()
    after_steps(trainer, 12)
    assert set(drawn) == {"package-1", "package-2", "package-3"}


@pytest.mark.parametrize(("spoilt", "what"), [("factors", "loss"), ("gradients", "gradient norm")])
def test_nan_stops_the_run_and_keeps_the_last_good_files(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str, what: str
) -> None:
    trainer = after_steps(make_trainer(), 3)
    before = {name: (tmp_path / "run" / name).read_bytes() for name in FILES}
    with monkeypatch.context() as patched, torch.no_grad():
        if spoilt == "factors":
            trainer.base.factors["layers.1.o.b"].fill_(math.nan)
        else:
            patched.setattr("torch.nn.utils.clip_grad_norm_", lambda *_arguments: torch.tensor(math.inf))
        with torch.enable_grad(), pytest.raises(TrainingError) as caught:
            trainer.run(1.0)
    assert re.search(rf"the {what} is (nan|inf) at step 3; stopped, the last good adapter is in", str(caught.value))
    assert {name: (tmp_path / "run" / name).read_bytes() for name in FILES} == before
    resumed = make_trainer()
    resumed.resume()
    after_steps(resumed, 4)


@pytest.mark.parametrize(
    "target", ["torch.save", "pathlib.Path.write_bytes", "dgemma_engine.tools.adaptation.progress.write_whole"]
)
def test_full_disk_is_reported_in_one_sentence_and_loses_nothing(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    trainer = after_steps(make_trainer(), 2)
    before = {name: (tmp_path / "run" / name).read_bytes() for name in FILES}

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(target, full)
        with pytest.raises(
            TrainingError, match=r"cannot be written \(.*No space left on device\).*free some space"
        ) as caught:
            after_steps(trainer, 3)
    assert "\n" not in str(caught.value)
    left = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert left.keys() == before.keys()
    assert left["causal.safetensors"] == before["causal.safetensors"] or target.endswith("write_whole")
    resumed = make_trainer()
    resumed.resume()
    after_steps(resumed, 4)


def test_state_of_another_base_corpus_or_rank_is_refused(make_trainer: MakeTrainer, tmp_path: Path, base: Path) -> None:
    after_steps(make_trainer(), 1)
    other_base = tmp_path / "other.gguf"
    other_base.write_bytes(base.read_bytes() + b"\0")
    other_corpus = tmp_path / "other.jsonl.gz"
    write_corpus(other_corpus, [source("go", name, 7) for name in ("package-1", HELD_OUT["go"])])
    for changed, key in (
        ({"base": other_base}, "model.base_sha256"),
        ({"corpus": other_corpus}, "data.corpus_sha256"),
        ({"rank": 3}, "model.rank"),
        ({"seed": 1}, "run.seed"),
    ):
        with pytest.raises(TrainingError, match=rf"was made with another configuration \(different: {key}\)"):
            make_trainer(**changed).resume()


def test_training_on_top_of_an_adapter_starts_from_the_merged_weights(
    make_trainer: MakeTrainer, tmp_path: Path, base: Path
) -> None:
    (tmp_path / "model").mkdir()
    own = tmp_path / "model" / "base.gguf"
    own.write_bytes(base.read_bytes())
    beneath = Adapter.read(write_adapter(own, "causal"))
    trainer = after_steps(make_trainer(base=own, beneath=beneath), 2)
    engine = load_llama(own, Ops.reference(), device=torch.device("cpu"), dtype=torch.float32)
    before = [parameter.clone() for parameter in engine.parameters()]
    adapt(engine, Adapters.find(own))
    mine = list(trainer.base.plain.parameters())
    assert all(torch.equal(one, other) for one, other in zip(mine, engine.parameters(), strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(mine, before, strict=True))
    with pytest.raises(TrainingError, match=r"different: model\.merged_sha256"):
        make_trainer(base=own).resume()
    resumed = make_trainer(base=own, beneath=beneath)
    resumed.resume()
    assert resumed.progress.step == 2


def test_rate_may_change_on_resuming(make_trainer: MakeTrainer, config: AdaptConfig) -> None:
    after_steps(make_trainer(), 1)
    make_trainer(optimizer=replace(config.optimizer, rate=1e-4)).resume()


def lines_of(path: Path, *lines: str) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
    return path


GOOD = json.dumps({"lang": "go", "name": "a.go", "package": HELD_OUT["go"], "licence": "MIT", "text": "x\n" * 200})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], "line 1 is no source file"),
        (["[]"], "line 1 is no source file"),
        ([GOOD, '{"lang": "go"}'], "line 2 is no source file ('name'); build the corpus again"),
        ([GOOD], "holds no package to train on; build the corpus from more packages"),
        ([GOOD.replace(HELD_OUT["go"], "package-1")], "holds no package held out"),
        ([GOOD, GOOD.replace(HELD_OUT["go"], "package-1")], "too few files that are long enough for a hole"),
    ],
)
def test_corpus_that_cannot_be_used_is_reported_in_one_sentence(
    make_trainer: MakeTrainer, tmp_path: Path, lines: list[str], message: str
) -> None:
    path = lines_of(tmp_path / "corpus.jsonl.gz", *lines)
    with pytest.raises(TrainingError) as caught:
        make_trainer(corpus=path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", gzip.compress(b"\xff\xfe")[:-9]], ids=["empty", "another format", "cut off"]
)
def test_damaged_corpus_is_reported_in_one_sentence(make_trainer: MakeTrainer, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="build"):
        make_trainer(corpus=path)
    with pytest.raises(WrongUsage, match=r"missing.jsonl.gz: no such file; name a corpus"):
        make_trainer(corpus=tmp_path / "missing.jsonl.gz")


def test_base_without_marks_or_of_another_family_is_refused(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    checkpoint = make_llama(tmp_path)
    with pytest.raises(TrainingError, match=r"vocabulary has no special token <\|endoftext\|>; choose another --base"):
        make_trainer(base=checkpoint.gguf)
    with pytest.raises(TrainingError, match="is no GGUF file of a Llama"):
        make_trainer(base=checkpoint.folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base", "nowhere.gguf"], "nowhere.gguf: no such folder or GGUF file"),
        (["--base", "tiny"], "is no GGUF file of a Llama"),
        (["--corpus", "nowhere.jsonl.gz"], "nowhere.jsonl.gz: no such file; name a corpus"),
        (["--resume"], "state.pt: missing, nothing to resume; start without --resume"),
    ],
)
def test_command_refuses_bad_input_in_one_sentence(
    base: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    arguments = ["--base", str(base), "--corpus", str(corpus), "--out", str(tmp_path / "out"), "--minutes", "1"]
    assert main(["adapt", *arguments, "--device", "cpu", *options]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_qwen2_as_base_is_refused_in_one_sentence(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_qwen2(tmp_path).gguf
    capsys.readouterr()
    arguments = ["--base", str(path), "--corpus", str(corpus), "--out", str(tmp_path / "out"), "--minutes", "1"]
    assert main(["adapt", *arguments, "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert f"{path}: is no GGUF file of a Llama, and adapters are for those; choose another --base" in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_card_without_memory_is_reported_in_one_sentence(
    base: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(AdaptTrainer, "run", full)
    arguments = ["--base", str(base), "--corpus", str(corpus), "--out", str(tmp_path / "out"), "--minutes", "1"]
    assert main(["adapt", *arguments, "--device", "cpu"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_command_trains_and_resumes(
    base: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["adapt", "--base", str(base), "--corpus", str(corpus), "--out", str(out), "--minutes", "0.01"]
    arguments += ["--device", "cpu", "--rank", "2", "--holes", "2", "--documents", "2", "--threads", "1"]
    assert main(arguments) == 0
    assert Adapter.read(out / "causal.safetensors").rank == 2
    assert "untrained: middle" in capsys.readouterr().out
    assert main(arguments) == 1
    assert "holds a run already; use --resume to go on, or another --out" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
    assert "resumed at step" in capsys.readouterr().out
