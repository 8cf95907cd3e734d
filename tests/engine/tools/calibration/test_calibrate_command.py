"""`dgemma-engine calibrate` from the command line: files, table, last line, and one line for every fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.checkpoint.calibration import Calibration, fingerprint
from dgemma_engine.checkpoint.features import NAMES
from dgemma_engine.checkpoint.fim_format import InfillFormat
from dgemma_engine.cli import main
from dgemma_engine.infill.engine import Engine

from tests.engine.tools.calibration.ranking_engine import RankingEngine, install

FORMAT = InfillFormat(
    fill_token_id=7, more_token_id=8, prefix_token_id=5, suffix_token_id=6, slot_sizes=(4, 8, 16, 24),
    prefix_tokens=48, suffix_tokens=16, suffix_head_tokens=6,
)  # fmt: skip
FIGURES = {
    "n", "num_files", "num_candidates", "base_rate", "silent", "oracle", "exact_match", "exact_match_ci",
    "exact_match_plain", "exact_match_canvas", "ece", "brier", "brier_constant", "threshold", "target",
    "target_reached", "coverage", "precision", "precision_ci", "precision_at_30", "kinds", "lengths", "no_lengths",
    "weights", "intercept",
}  # fmt: skip
FACTS = {"command", "model", "fingerprint", "files", "written", "device", "seed", "commit", "date", "cpu"}
OLD = '{"an": "older calibration"}'


@pytest.fixture
def engine(tree: Path, monkeypatch: pytest.MonkeyPatch) -> RankingEngine:
    engine = RankingEngine([path.read_text() for path in sorted(tree.rglob("*.py"))])
    install(engine, monkeypatch)
    return engine


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder with an unreadable calibration."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((8).to_bytes(8, "little") + bytes(1_000))
    (folder / "config.json").write_text('{"model_type": "diffusion_gemma"}')
    FORMAT.save(folder)
    (folder / "calibration.json").write_text(OLD)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_calibration_replaces_an_unreadable_one(
    engine: RankingEngine, model: Path, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="plots need the train extra: they were not checked")
    assert main(["calibrate", str(model), str(tree), "--holes", "120", "--precision", "0.5"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result.keys() >= FIGURES | FACTS
    assert result == json.loads((model / "calibration_report.json").read_text())
    assert result["exact_match_plain"] < result["exact_match"] <= result["oracle"] < 0.7
    assert (result["n"], result["num_files"], result["written"]) == (120, 12, True)
    assert {kind: figures["n"] for kind, figures in result["kinds"].items()} == {
        "line": 48, "rest": 48, "multiline": 24,
    }  # fmt: skip
    assert result["lengths"]["hit_raw"] < result["lengths"]["hit_corrected"]
    assert result["target_reached"] and result["precision"] >= 0.5
    for name in ("reliability.png", "coverage.png"):
        assert (model / name).read_bytes().startswith(b"\x89PNG")

    calibration = Calibration.load(model, fingerprint(model))
    assert [name for name, _ in calibration.weights or ()] == list(NAMES)
    assert dict(calibration.weights or ())["agreement"] > 1
    assert calibration.threshold == pytest.approx(result["threshold"], abs=1e-4)
    assert len(calibration.length_bias) >= 8
    assert calibration.provenance is not None
    assert (calibration.provenance.num_holes, calibration.provenance.num_files) == (120, 12)
    assert (calibration.provenance.file_share, calibration.provenance.date) == (1.0, result["date"])
    assert names(model) == {
        "model.safetensors", "config.json", "infill.json", "calibration.json", "calibration_report.json",
        "reliability.png", "coverage.png",
    }  # fmt: skip


def test_table_precedes_the_last_line_and_progress_is_on_stderr(
    engine: RankingEngine, model: Path, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(model), str(tree), "--holes", "60", "--dry-run"]) == 0
    out, error = capsys.readouterr()
    for word in ("holes", "candidates", "first is right", "probabilities", "threshold", "lengths", "weights"):
        assert any(line.startswith(word) for line in out.splitlines()[:-1])
    assert error.startswith("loading model\n") and error.endswith("100 % (108 of 108 questions asked)\n")


def test_same_seed_same_calibration(engine: RankingEngine, model: Path, tree: Path) -> None:
    written: list[str] = []
    for seed in ("0", "0", "1"):
        assert main(["calibrate", str(model), str(tree), "--holes", "60", "--seed", seed]) == 0
        written.append((model / "calibration.json").read_text())
    assert written[0] == written[1] != written[2]


def test_dry_run_leaves_the_model_unchanged(
    engine: RankingEngine, model: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = names(model)
    assert main(["calibrate", str(model), str(tree), "--holes", "60", "--dry-run"]) == 0
    assert names(model) == before
    plots = tmp_path / "new" / "plots"
    assert main(["calibrate", str(model), str(tree), "--holes", "60", "--dry-run", "--plots", str(plots)]) == 0
    assert (plots / "calibration_report.json").exists()
    assert names(model) == before
    assert (model / "calibration.json").read_text() == OLD
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["written"] is False


def test_an_interrupted_run_leaves_the_old_calibration(
    engine: RankingEngine, model: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(model)
    ranked = engine.ranked

    def interrupted(*arguments: Any, **options: Any) -> Any:
        if len(engine.asked) == 20:
            raise KeyboardInterrupt
        return ranked(*arguments, **options)

    monkeypatch.setattr(engine, "ranked", interrupted)
    assert main(["calibrate", str(model), str(tree), "--holes", "60"]) == 130
    assert names(model) == before
    assert (model / "calibration.json").read_text() == OLD


def test_without_matplotlib_there_are_figures_but_no_plots(
    engine: RankingEngine, model: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dgemma_engine.tools.calibration.plots._figure", lambda **_options: None)
    assert main(["calibrate", str(model), str(tree), "--holes", "60"]) == 0
    assert "no pictures: matplotlib is not installed" in capsys.readouterr().err
    assert {"calibration.json", "calibration_report.json"} <= names(model)
    assert "coverage.png" not in names(model)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["{tmp}/none", "{tree}"], 2, "none: no such folder or GGUF file"),
        (["{tree}", "{tree}"], 2, "tree: no config.json"),
        (["{model}", "{tmp}/none.py"], 2, "none.py: no such file"),
        (["{model}", "{tree}", "--glob", "*.xyz"], 1, "holds no usable file like *.xyz"),
        (["{model}", "{tree}/package/aname.py"], 1, "in 1 files are too few"),
        (["{model}", "{tree}", "--plots", "{model}/infill.json/x"], 1, "cannot be written"),
    ],
)
def test_faults_are_reported_in_one_line_before_the_model_is_loaded(
    options: list[str],
    code: int,
    message: str,
    model: Path,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(None, monkeypatch)
    filled = [option.format(tmp=tmp_path, tree=tree, model=model) for option in options]
    assert main(["calibrate", *filled]) == code
    out, error = capsys.readouterr()
    assert message in error
    assert (error.count("\n"), out) == (1, "")
    assert (model / "calibration.json").read_text() == OLD


def test_unwritable_model_folder_is_reported_at_once(
    model: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(None, monkeypatch)

    def refuse(*, dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    # Root may write regardless of a folder's mode.
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert main(["calibrate", str(model), str(tree)]) == 1
    error = capsys.readouterr().err
    assert f"{model}: cannot be written (Permission denied); calibrate a copy of the model" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kinds", "line,word"], "'word' is not a valid HoleKind; choose from line, rest"),
        (["--holes", "29"], "29 must be at least 30"),
        (["--holes", "many"], "'many'"),
        (["--precision", "1.5"], "'1.5' must be a number between 0 and 1"),
        (["--precision", "nan"], "'nan' must be a number between 0 and 1"),
        (["--seed", "-1"], "-1"),
    ],
)
def test_wrong_usage_is_exit_code_two(
    options: list[str], message: str, model: Path, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["calibrate", str(model), str(tree), *options])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_no_files_is_wrong_usage(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["calibrate", str(model)])
    assert exit_info.value.code == 2
    assert "FILE" in capsys.readouterr().err


@pytest.mark.parametrize("trained", [True, False])
def test_a_real_checkpoint_is_calibrated_and_then_loads(
    trained: bool, make_checkpoint: Callable[..., Any], tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its generated text is random, but lines copied from elsewhere in the file are sometimes right."""
    folder = make_checkpoint(seed=21, spread=0.1, canvas_length=64).folder
    if trained:
        FORMAT.save(folder)
    (folder / "generation_config.json").write_text(json.dumps({"max_denoising_steps": 2}))
    (folder / "calibration.json").write_text(OLD)
    assert main(["calibrate", str(folder), str(tree), "--holes", "30", "--kinds", "line", "--device", "cpu"]) == 0
    out, error = capsys.readouterr()
    assert error.count("loading") == (1 if trained else 2)
    result = json.loads(out.splitlines()[-1])
    assert 0 < result["exact_match"] <= result["oracle"]
    engine = Engine.load(folder, device="cpu", report=lambda _percent, _message: None)
    assert engine.model_name == folder.name
