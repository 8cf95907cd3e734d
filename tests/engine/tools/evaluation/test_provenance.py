from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from dgemma_engine.tools.evaluation import provenance


def test_commit_is_that_of_the_packages_own_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
    environment["GIT_COMMITTER_EMAIL"] = "a@b"
    package = tmp_path / "site" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    (tmp_path / "other").write_text("")
    for command in (["init", "-q"], ["add", "other"], ["commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, env=environment, check=True)
    monkeypatch.setattr("dgemma_engine.__file__", str(package))
    assert provenance.commit() == "unknown"
    for command in (["add", "site"], ["commit", "-qm", "y"]):
        subprocess.run(["git", *command], cwd=tmp_path, env=environment, check=True)
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=tmp_path, capture_output=True, text=True)
    assert provenance.commit() == head.stdout.strip()
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() == "unknown"
