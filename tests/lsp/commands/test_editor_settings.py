"""Settings as an editor sends them, as a file or on the doctor's standard input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dgemma_lsp.commands.checks.finding import Severity
from dgemma_lsp.commands.editor_settings import read_editor_settings
from dgemma_lsp.settings.settings import Settings
from tests.lsp.programs import environ_in

ELSEWHERE = {"engine": {"url": "http://127.0.0.1:9", "keyFile": "~/key", "caFile": "/ca.pem"}}


def doctor(folder: Path, settings: str, *arguments: str) -> tuple[int, str, str]:
    """Returns exit code, standard output and standard error of a doctor that reads `settings`."""
    done = subprocess.run(
        [sys.executable, "-m", "dgemma_lsp", "doctor", *arguments, "--settings", "-"],
        input=settings,
        env=environ_in(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_settings_of_a_file_replace_those_of_the_options(tmp_path: Path) -> None:
    (path := tmp_path / "settings.json").write_text(json.dumps({"dgemma": {**ELSEWHERE, "engine.device": "cpu"}}))
    settings, problems = read_editor_settings(str(path), Settings(engine_model="tiny", engine_url="http://gpu.lan"))
    assert problems == []
    assert settings == Settings(
        engine_model="tiny",
        engine_device="cpu",
        engine_url="http://127.0.0.1:9",
        engine_key_file="~/key",
        engine_ca_file="/ca.pem",
    )


def test_without_a_file_the_options_hold() -> None:
    base = Settings(engine_model="tiny")
    assert read_editor_settings(None, base) == (base, [])


def test_setting_that_cannot_be_used_is_a_warning(tmp_path: Path) -> None:
    (path := tmp_path / "settings.json").write_text(json.dumps({"engine": {"device": "tpu"}}))
    settings, [problem] = read_editor_settings(str(path), Settings())
    assert settings == Settings()
    assert "dgemma.engine.device must be auto, cpu, cuda or cuda:N, not 'tpu'" in problem.detail
    assert (problem.name, problem.verdict, problem.remedy) == ("settings", "warn", "see dgemma-lsp settings")


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "\udcff"])
def test_file_without_json_is_refused(tmp_path: Path, content: str) -> None:
    (path := tmp_path / "settings.json").write_text(content, errors="surrogateescape")
    with pytest.raises(ValueError, match=r"settings\.json are no JSON \(.*\); write one JSON object"):
        read_editor_settings(str(path), Settings())


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^cannot read the settings in {tmp_path}/none: {os.strerror(2)}; "):
        read_editor_settings(str(tmp_path / "none"), Settings())


@pytest.mark.e2e
def test_doctor_examines_the_engine_of_its_standard_input(tmp_path: Path) -> None:
    settings = {"engine": {"url": "http://127.0.0.1:9"}, "engine.device": "tpu"}
    code, out, _ = doctor(tmp_path, json.dumps(settings), "--json")
    checks = {check["name"]: check["detail"] for check in json.loads(out)["checks"]}
    assert (code, checks["engine"]) == (1, "127.0.0.1:9 refuses connections")
    assert "'tpu'" in checks["settings"]


@pytest.mark.e2e
def test_doctor_refuses_standard_input_without_json(tmp_path: Path) -> None:
    code, out, errors = doctor(tmp_path, "{")
    assert (code, out) == (2, "")
    assert errors.startswith("dgemma-lsp: the settings in - are no JSON (") and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "verdict", "detail", "remedy"),
    [
        ({"enabled": False}, Severity.FAIL, "dgemma.enabled is false", "set dgemma.enabled to true"),
        ({"pausedLanguages": ["python", "go"]}, Severity.WARN, "nothing is offered in python, go", "pausedLanguages"),
        ({"engine": {"autostart": False}}, Severity.WARN, "engine.autostart is false", "dgemma-engine start"),
        ({"engine": {"autostart": False, "url": "http://gpu.lan"}}, None, "", ""),
    ],
)
def test_settings_that_switch_completions_off_are_found(
    settings: dict[str, object], verdict: Severity | None, detail: str, remedy: str, tmp_path: Path
) -> None:
    (path := tmp_path / "settings.json").write_text(json.dumps(settings))
    _, findings = read_editor_settings(str(path), Settings())
    assert [finding.verdict for finding in findings] == ([] if verdict is None else [verdict])
    assert all(detail in finding.detail and remedy in finding.remedy for finding in findings)
