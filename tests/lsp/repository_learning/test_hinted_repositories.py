from __future__ import annotations

import stat
from pathlib import Path

from dgemma_lsp.repository_learning.hinted_repositories import HintedRepositories


def located(state: Path) -> HintedRepositories:
    return HintedRepositories.locate({"XDG_STATE_HOME": str(state)}, home=Path("/"))


def test_first_window_claims_the_hint_and_no_other(tmp_path: Path) -> None:
    first, second = located(tmp_path), located(tmp_path)
    assert "/w/one" not in first
    assert first.claim("/w/one") and not second.claim("/w/one") and not first.claim("/w/one")
    assert "/w/one" in second and "/w/two" not in second
    assert second.claim("/w/\udcff") and not first.claim("/w/\udcff")
    (file, _other) = first.folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and file.read_bytes() == b""


def test_hint_that_cannot_be_recorded_is_not_claimed(tmp_path: Path) -> None:
    (tmp_path / "dgemma-lsp").write_text("a file in the way")
    assert not located(tmp_path).claim("/w/one")
