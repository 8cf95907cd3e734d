"""`:DgemmaDenoise` with the real engine: a draft for each step, then the answer; the file stays as it is."""

from __future__ import annotations

import re
from pathlib import Path

from tests.editors.neovim.conftest import Start
from tests.editors.neovim.test_denoise import drawn

AREA = (
    "width = 3\nheight = 4\n\n\ndef area(width, height):\n    return width * height\n\n\nprint(area(width, height))\n"
)


def test_drafts_are_drawn_until_the_answer(start: Start, tmp_path: Path) -> None:
    window = start(AREA)
    window.keys("Goprint(area(")
    ghost = window.see_ghost()
    seen: list[str] = []
    window.lua("vim.cmd.DgemmaDenoise()")

    def ended() -> bool:
        now = drawn(window)
        seen.append(now)
        return "offered after" in now

    window.until(ended, about="what is offered")
    assert any(re.search(r"step \d+/\d+", each) for each in seen), seen
    assert seen[-1].startswith(f"{ghost}:DgemmaSettled| offered after ")
    window.keys("<Esc>u")
    window.save()
    assert drawn(window) == ""
    assert (tmp_path / "a.py").read_text() == AREA
