"""The page of a trace in Chromium: it plays, loads nothing, and runs none of the text that it shows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.infill.engine import Engine
from dgemma_engine.scheduling.timing import Cancel
from dgemma_engine.tracing.recorder import Recorder

from dgemma_lsp.commands.complete import request_at
from dgemma_lsp.commands.file_location import FilePosition
from dgemma_lsp.commands.trace_report import to_html, trace_view
from dgemma_lsp.engine_client.infill_client import ContextLimits, build_context
from dgemma_lsp.request import Trigger
from tests.lsp.engine_process import STATUS_NOW
from tests.lsp.traces import corrected_trace, made_trace

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"
CODE = """\
width = 3
height = 4


def area(width, height):
    return width * height


print(area(width, height))
print(area())
"""

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


class Seen:
    """A page with its errors and its requests."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.troubles: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.troubles.append(message.text))
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def now(self) -> str:
        return self.page.locator("#now").inner_text()

    def hole(self) -> str:
        return self.page.locator("#source .hole").inner_text()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Seen]]:
    contexts: list[Any] = []
    pages: list[tuple[Seen, str]] = []

    def open_page(content: str, *, fragment: str = "", **options: Any) -> Seen:
        path = tmp_path / "trace.html"
        path.write_text(content, encoding="utf-8")
        contexts.append(browser.new_context(**options))
        seen = Seen(contexts[-1].new_page())
        seen.page.goto(path.as_uri() + fragment)
        pages.append((seen, path.as_uri()))
        return seen

    yield open_page
    for seen, url in pages:
        assert seen.troubles == []
        assert set(seen.requests) == {url}
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def page() -> str:
    """A real recording of the embedded model."""
    engine = Engine.load(model_folder("tiny"), device="cpu", report=lambda _percent, _message: None)
    request = request_at(
        FilePosition(path=Path("area.py"), text=CODE, offset=CODE.rindex("area(") + len("area(")),
        trigger=Trigger.AUTOMATIC,
        deadline_ms=0,
    )
    recorder = Recorder(time.monotonic)
    # No deadline: the recording must not depend on the speed of the machine.
    cancel = Cancel(deadline_s=math.inf, clock=time.monotonic)
    infill = engine.infill(build_context(request, ContextLimits()), cancel, recorder=recorder)
    return to_html(trace_view(request, 10, 12, recorder.trace(infill), STATUS_NOW))


def made(
    text: str = "x = ", *, answer: str = "1 + 1", token: str = " one", num_canvases: int = 1, writes: bool = True
) -> str:
    request = request_at(
        FilePosition(path=Path("a.py"), text=text, offset=len(text)), trigger=Trigger.AUTOMATIC, deadline_ms=1_000
    )
    trace = made_trace(text=answer, token=token)
    further = [replace(trace.canvases[0], written_ids=(1, 3))] * (num_canvases - 1)
    writings = trace.writings if writes else ()
    trace = replace(trace, canvases=(*trace.canvases, *further), writings=writings)
    return to_html(trace_view(request, 1, len(text) + 1, trace, STATUS_NOW))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1_180])
def test_first_middle_and_last_step(
    page: str, opened: Callable[..., Seen], tmp_path: Path, scheme: str, width: int
) -> None:
    assert len(page.encode()) < 1_000_000
    seen = opened(page, color_scheme=scheme, viewport={"width": width, "height": 900})
    pictures: list[bytes] = []
    says = [
        ("0", "Before the first step", ""),
        ("2", "Step 2 of 4", "width, height"),
        ("5", "The answer", "width, height"),
    ]
    for frame, now, hole in says:
        seen.page.evaluate("frame => { location.hash = frame; }", frame)
        seen.page.reload()
        assert seen.now().startswith(now)
        assert seen.hole() == hole
        assert seen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        pictures.append(seen.page.screenshot(full_page=True, path=tmp_path / f"{frame}.png"))
    assert len(set(pictures)) == 3
    background = seen.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    is_dark = sum(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")) < 200
    assert is_dark == (scheme == "dark")


def test_keys_move_through_the_steps(page: str, opened: Callable[..., Seen]) -> None:
    seen = opened(page)
    frames = ["Before the first step", "Step 1 of 4", "Step 2 of 4", "Step 3 of 4", "Step 4 of 4", "The answer"]
    for expected in frames[1:]:
        seen.page.keyboard.press("ArrowRight")
        assert seen.now().startswith(expected)
    seen.page.keyboard.press("ArrowRight")
    assert seen.now().startswith("The answer")
    seen.page.keyboard.press("ArrowLeft")
    assert seen.now().startswith("Step 4 of 4")
    seen.page.keyboard.press("Home")
    assert seen.now().startswith(frames[0])
    seen.page.keyboard.press("End")
    assert seen.now().startswith(frames[-1])
    assert seen.page.locator("#slider").input_value() == "5"
    seen.page.locator("#slider").fill("3")
    assert seen.now().startswith("Step 3 of 4")
    seen.page.locator("#slider").press("ArrowLeft")
    assert seen.now().startswith("Step 2 of 4")


def test_space_plays_to_the_end_and_pauses(page: str, opened: Callable[..., Seen]) -> None:
    seen = opened(page, fragment="#4")
    play = seen.page.locator("#play")
    seen.page.keyboard.press("Space")
    assert play.get_attribute("aria-pressed") == "true"
    seen.page.locator("#ticks li.here", has_text="answer").wait_for()
    assert play.get_attribute("aria-pressed") == "false"
    seen.page.keyboard.press("Space")
    assert seen.now().startswith("Before the first step")
    seen.page.keyboard.press("Space")
    assert play.get_attribute("aria-pressed") == "false"


def test_marks_differ_in_more_than_colour(opened: Callable[..., Seen]) -> None:
    seen = opened(made(), fragment="#1")
    styles = {
        name: seen.page.locator(f"#canvas .{name}").first.evaluate(
            "cell => [getComputedStyle(cell).borderBottomStyle, getComputedStyle(cell).backgroundImage.slice(0, 9)]"
        )
        for name in ("accepted", "renoised", "given")
    }
    assert len({tuple(style) for style in styles.values()}) == 3


def test_renoised_token_is_marked_once_another_is_accepted(opened: Callable[..., Seen]) -> None:
    request = request_at(
        FilePosition(path=Path("a.py"), text="x = ", offset=4), trigger=Trigger.AUTOMATIC, deadline_ms=1_000
    )
    content = to_html(trace_view(request, 1, 5, corrected_trace(), STATUS_NOW))
    assert opened(content, fragment="#3").page.locator("#canvas .corrected").count() == 0
    seen = opened(content, fragment="#4")
    assert seen.page.locator("#canvas .corrected .token").all_inner_texts() == ["b"]
    seen.page.locator("#canvas .corrected").hover()
    assert "Corrected: a was kept at an earlier step" in seen.page.locator("#tip").inner_text()


def test_token_shows_its_alternatives(page: str, opened: Callable[..., Seen]) -> None:
    seen = opened(page, fragment="#2")
    tip = seen.page.locator("#tip")
    assert not tip.is_visible()
    seen.page.locator("#canvas .renoised").first.hover()
    assert "nats" in tip.inner_text()
    assert "Replaced by noise" in tip.inner_text()
    seen.page.keyboard.press("Escape")
    assert not tip.is_visible()
    seen.page.locator("#canvas .cell[tabindex='0']").focus()
    first = tip.inner_text()
    seen.page.keyboard.press("Shift+ArrowRight")
    assert tip.inner_text() != first


def test_dropped_row_shows_when_and_why(opened: Callable[..., Seen]) -> None:
    seen = opened(made(), fragment="#2")
    assert seen.page.locator(".row").nth(1).locator(".fate").inner_text().startswith("✕ dropped")
    assert "after step 1" in seen.page.locator(".row").nth(1).inner_text()
    assert "stayed to the end" in seen.page.locator(".row").nth(0).inner_text()
    assert "+ 5 more" in seen.page.locator(".row").nth(0).inner_text()


def test_autoregressive_text_has_a_section_of_its_own(opened: Callable[..., Seen]) -> None:
    seen = opened(made())
    writing = seen.page.locator("#writing")
    assert "Pass 1" in writing.inner_text()
    assert "✓ ended by itself" in writing.inner_text()
    assert "writes 1 + 1" in writing.inner_text()
    agreed, own = writing.locator(".cell").all()
    assert (agreed.inner_text().split(), own.inner_text().split()) == (["90", "%", "·one"], ["60", "%", "end"])
    styles = {one.evaluate("cell => getComputedStyle(cell).borderBottomStyle") for one in (agreed, own)}
    assert len(styles) == 2
    own.hover()
    tip = seen.page.locator("#tip").inner_text()
    assert "Ends the text" in tip
    assert "The draft had ·one here." in tip
    agreed.focus()
    assert "The draft had the same token." in seen.page.locator("#tip").inner_text()
    seen.page.keyboard.press("Shift+ArrowRight")
    assert "Ends the text" in seen.page.locator("#tip").inner_text()


def test_section_of_autoregressive_text_is_hidden_without_any(opened: Callable[..., Seen]) -> None:
    assert not opened(made(writes=False)).page.locator("#writing").is_visible()


def test_steps_of_a_second_canvas_follow_those_of_the_first(opened: Callable[..., Seen]) -> None:
    seen = opened(made(num_canvases=2))
    assert seen.page.locator("#ticks").inner_text().split() == ["noise", "1", "2", "noise", "1", "2", "answer"]
    assert seen.page.locator(".canvas-note").inner_text() == "Canvas 1 of 2: the first."
    for _ in range(3):
        seen.page.keyboard.press("ArrowRight")
    assert seen.now().startswith("Before the first step, canvas 2 of 2")
    assert "continues after the text of the one before" in seen.page.locator(".canvas-note").inner_text()
    assert seen.page.locator("#canvas .row").count() == 2


def test_answer_of_several_lines_is_shown_in_its_place(opened: Callable[..., Seen]) -> None:
    seen = opened(made("def f():\n    ", answer="if x:\n        return 1"), fragment="#9")
    text = seen.page.locator("#source .here .code")
    assert text.evaluate("line => line.textContent") == "    if x:\n        return 1"
    first, last = text.locator(".hole").evaluate("hole => [...hole.getClientRects()].map(box => box.left)")
    assert last < first


def test_reason_for_an_empty_answer_is_shown(opened: Callable[..., Seen]) -> None:
    seen = opened(made("x = ", answer=""), fragment="#9")
    summary = seen.page.locator("#summary").inner_text()
    assert summary.startswith("Nothing is shown. The best candidate, 2, has 5 %; this model shows an answer from 10 %.")
    assert "nothing likely enough" in seen.now()
    assert "Would add syntax errors" in seen.page.locator("#candidates").inner_text()


def test_markup_in_the_texts_is_shown_and_not_run(opened: Callable[..., Seen]) -> None:
    seen = opened(made(HOSTILE, answer=HOSTILE, token=HOSTILE), fragment="#9")
    assert HOSTILE in seen.page.locator("#source").inner_text()
    assert HOSTILE in seen.page.locator("#candidates").inner_text()
    seen.page.locator("#canvas .cell").nth(1).hover()
    assert seen.page.evaluate("window.hacked") is None
    assert seen.page.locator("img").count() == 0


def test_autoregressive_model_has_no_notice_and_counts_passes(opened: Callable[..., Seen]) -> None:
    request = request_at(
        FilePosition(path=Path("a.py"), text="x = ", offset=4), trigger=Trigger.AUTOMATIC, deadline_ms=1_000
    )
    trace = made_trace()
    written = replace(trace, canvases=(), infill=replace(trace.infill, steps=0, forwards=7))
    for writings, notice in ((trace.writings, ""), ((), "The model wrote nothing.")):
        content = to_html(trace_view(request, 1, 5, replace(written, writings=writings), STATUS_NOW))
        page = opened(content).page
        assert page.locator("#notice").inner_text() == notice
        assert "7 passes of the model" in page.locator("#summary").inner_text()
