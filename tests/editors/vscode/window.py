"""One window of VS Code, as a person uses it: keys, commands, what stands on the screen, files on the disk."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

ARTEFACTS = Path(__file__).parents[3] / ".editors/artefacts"
TIMEOUT_MS = 10_000
# The first workbench of a machine is read from disk and compiled by the browser.
OPENS_MS = 60_000


class Window:
    """A page that shows a workbench.

    Args:
        page: the browser's page; goes to `url`.
        url: of the window.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(url, timeout=OPENS_MS)
        page.wait_for_selector(".monaco-workbench .part.statusbar", timeout=OPENS_MS)

    def open(self, path: Path) -> None:
        """Opens a file, and puts the cursor into it."""
        self.reveal(path)
        expect(self.page.locator(".monaco-editor.focused").first).to_be_visible()

    def reveal(self, path: Path) -> None:
        """Opens a file in its default editor."""
        self.press("Control+P")
        box = self.page.locator(".quick-input-widget input.input")
        expect(box).to_be_visible()
        box.fill(str(path))  # the whole path: looking a name up needs a program that is not in the registry's package
        self.page.locator(".quick-input-list .monaco-list-row.focused", has_text=path.name).wait_for()
        self.press("Enter")
        expect(self.page).to_have_title(re.compile(rf"^{re.escape(path.name)}"))

    def press(self, *keys: str) -> None:
        """Presses keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text: str, *, delay_ms: float = 0) -> None:
        """Types text, a key at a time."""
        self.page.keyboard.type(text, delay=delay_ms)

    def go_to(self, line: int, column: int) -> None:
        """Moves the cursor to a line and column, both counted from 1."""
        self.press("Control+G")
        box = self.page.locator(".quick-input-widget input.input")
        expect(box).to_be_visible()
        box.fill(f":{line}:{column}")
        self.press("Enter")
        expect(self.page.locator(".quick-input-widget")).to_be_hidden()

    def command(self, title: str) -> None:
        """Runs a command by its title."""
        self.press("F1")
        box = self.page.locator(".quick-input-widget input.input")
        expect(box).to_be_visible()
        box.fill(f">{title}")
        self.page.locator(".quick-input-list .monaco-list-row.focused", has_text=title).wait_for()
        self.press("Enter")

    def ghost(self) -> str:
        """Returns the ghost text that stands on the screen, line by line; empty where there is none."""
        return self.page.evaluate(GHOST)

    def wait_ghost(self, text: str = "", *, timeout_ms: float = TIMEOUT_MS) -> str:
        """Waits for ghost text that contains `text`, and returns all of it."""
        holds = f"text => {{ const found = ({GHOST})(); return found.includes(text) && found; }}"
        return self.page.wait_for_function(holds, arg=text, timeout=timeout_ms).json_value()

    def wait_whole_ghost(self, text: str) -> None:
        """Waits until the ghost text equals `text`, blanks around it aside; it may be a part of the earlier one."""
        self.page.wait_for_function(f"text => (({GHOST})() || '').trim() === text.trim()", arg=text)

    def wait_no_ghost(self) -> None:
        """Waits until no ghost text stands on the screen."""
        self.page.wait_for_function(f"() => !({GHOST})()")

    def wait_ghost_other_than(self, text: str) -> str:
        """Waits for ghost text that differs from `text`, and returns it."""
        differs = f"text => {{ const found = ({GHOST})(); return found !== text && found; }}"
        return self.page.wait_for_function(differs, arg=text).json_value()

    def wait_line(self, text: str) -> None:
        """Waits until a drawn line contains `text` while no ghost text stands on the screen."""
        drawn = f"text => !({GHOST})() && ({_LINES})().includes(text)"
        self.page.wait_for_function(drawn, arg=text)

    def wait_drawn(self, text: str) -> None:
        """Waits until the lines as they are drawn contain `text`, decorations included."""
        self.page.wait_for_function(f"text => ({_DECORATED})().includes(text)", arg=text)

    def wait_not_drawn(self, text: str) -> None:
        """Waits until the lines as they are drawn do not contain `text`."""
        self.page.wait_for_function(f"text => !({_DECORATED})().includes(text)", arg=text)

    def record_drawn(self) -> None:
        """Starts to record the text that decorations add, however briefly it is shown."""
        self.page.evaluate(_RECORD)

    def recorded(self) -> list[str]:
        """Returns the recorded texts, in the order in which they were first shown."""
        return self.page.evaluate("() => [...window.recorded]")

    def wait_no_decorations(self) -> None:
        """Waits until decorations add nothing to the text."""
        self.page.wait_for_function(f"() => !({_COLOURS})().length")

    def decoration_colours(self) -> set[str]:
        """Returns the colours of the text that decorations add."""
        return set(self.page.evaluate(_COLOURS))

    def saved(self, path: Path) -> str:
        """Saves the file and returns what is on the disk; VS Code empties the file before it writes."""
        self.save()
        for _ in range(100):
            if path.stat().st_size:
                break
            self.page.wait_for_timeout(50)
        return path.read_text(encoding="utf-8")

    def drawn(self) -> str:
        """Returns the lines of the active editor as they are drawn, ghost text included."""
        return self.page.evaluate(_LINES)

    def save(self) -> None:
        """Saves the file and waits until it is on the disk."""
        self.press("Control+S")
        expect(self.page.locator(".tab.active.dirty")).to_have_count(0)

    def status_item(self) -> Locator:
        """Returns the extension's item in the status bar."""
        return self.page.locator(".statusbar-item[id='dgemma.dgemma-lsp.dgemma.status']")

    def wait_status(self, pattern: str, *, timeout_ms: float = TIMEOUT_MS) -> None:
        """Waits until the accessible name of that item, which holds text and explanation, matches a pattern."""
        expect(self.status_item()).to_have_attribute("aria-label", re.compile(pattern, re.DOTALL), timeout=timeout_ms)

    def notice(self, text: str) -> Locator:
        """Waits for a notification that contains `text`, and returns it."""
        toast = self.page.locator(".notification-toast", has_text=text).first
        toast.wait_for()
        return toast

    def dismiss_notices(self) -> None:
        """Clears all notifications."""
        self.command("Notifications: Clear All Notifications")
        expect(self.page.locator(".notification-toast")).to_have_count(0)

    def choose(self, text: str) -> None:
        """Chooses an entry of the list that is open."""
        self.page.locator(".quick-input-list .monaco-list-row", has_text=text).first.click()
        expect(self.page.locator(".quick-input-widget")).to_be_hidden()

    def menu(self, entry: str) -> None:
        """Chooses an entry of the menu of the extension's status bar item."""
        self.status_item().click()
        self.choose(entry)

    def entries(self, title: str) -> list[str]:
        """Returns the entries of a list in order, once it is open."""
        self.page.locator(".quick-input-title", has_text=title).wait_for()
        rows = self.page.locator(".quick-input-list .monaco-list-row")
        rows.first.wait_for()
        return [" ".join(text.split()) for text in rows.all_inner_texts()]

    def shot(self, name: str) -> Path:
        """Saves a screenshot of the window."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        path = ARTEFACTS / f"vscode-{name}.png"
        self.page.screenshot(path=path, animations="disabled")
        return path


# A function of the page: the ghost text that stands in it.
GHOST = """() => [...document.querySelectorAll(
    '.monaco-editor .ghost-text-decoration, .monaco-editor .ghost-text-decoration-preview, '
    + '.monaco-editor .ghost-text, .monaco-editor .suggest-preview-text .ghost-text')]
    .filter(found => !found.parentElement.closest('.ghost-text, .ghost-text-decoration'))
    .map(found => [found.getBoundingClientRect(), found])
    .sort(([a], [b]) => a.top - b.top || a.left - b.left)
    .map(([, found]) => found.textContent).join('')
    .replace(/[\\u200c\\u200d]/g, '').replace(/\\u00a0/g, ' ')"""
_LINES = """() => [...document.querySelectorAll('.editor-group-container.active .view-line')]
    .map(line => [line.getBoundingClientRect().top, line.textContent])
    .sort(([a], [b]) => a - b).map(([, text]) => text).join('\\n')
    .replace(/[\\u200c\\u200d]/g, '').replace(/\\u00a0/g, ' ')"""
# What an extension adds to a line is no text of the page but the content of its style.
_ADDED = "getComputedStyle(span, '::after')"
_DECORATED = f"""() => [...document.querySelectorAll('.view-line > span > span')]
    .map(span => span.textContent + ({_ADDED}.content.match(/^"(.*)"$/)?.[1] ?? '')).join('')
    .replace(/\\u00a0/g, ' ')"""
_RECORD = f"""() => {{
    window.recorded = new Set();
    window.recorder?.disconnect();
    window.recorder = new MutationObserver(() => {{
        for (const span of document.querySelectorAll('.view-line > span > span')) {{
            const added = {_ADDED}.content.match(/^"(.*)"$/)?.[1];
            if (added) window.recorded.add(added.replace(/\\u00a0/g, ' '));
        }}
    }});
    window.recorder.observe(document.body, {{childList: true, subtree: true, attributes: true, characterData: true}});
}}"""
_COLOURS = f"""() => [...document.querySelectorAll('.view-line > span > span')]
    .filter(span => {_ADDED}.content.startsWith('"')).map(span => {_ADDED}.color)"""
