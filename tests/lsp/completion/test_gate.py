from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dgemma_lsp.completion.admission import OFF, CompletionGate
from dgemma_lsp.documents.notebooks import Notebooks
from dgemma_lsp.documents.store import Document
from dgemma_lsp.privacy.policy import Privacy
from dgemma_lsp.settings.settings import Settings

KEY = "-----BEGIN RSA PRIVATE KEY-----\n"


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def gate(home: Path, clock: Clock) -> CompletionGate:
    made = CompletionGate(Notebooks(lambda _uri: None), Privacy((), home=home, clock=clock), clock=clock)
    made.settings = Settings(enabled=True)
    return made


def document(path: Path, text: str = "x = 1\n", language: str = "python") -> Document:
    return Document(uri=path.as_uri(), version=1, language=language, text=text)


def test_answer_is_kept_for_a_second_or_until_ignore_files_change(tmp_path: Path) -> None:
    clock = Clock()
    tested, asked = gate(tmp_path / "home", clock), document(tmp_path / "a.py")
    assert tested.why_not_complete(asked) is None
    (tmp_path / ".dgemmaignore").write_text("a.py\n")
    clock.now_s = 0.9
    assert tested.why_not_complete(asked) is None
    clock.now_s = 2.0
    assert tested.why_not_complete(asked) == "this file is private (.dgemmaignore: a.py)"
    (tmp_path / ".dgemmaignore").write_text("")
    assert tested.why_not_complete(asked) is not None
    tested.forget()
    assert tested.why_not_complete(asked) is None


def test_answer_is_not_kept_for_other_settings_language_or_first_lines(tmp_path: Path) -> None:
    tested, path = gate(tmp_path / "home", Clock()), tmp_path / "a.py"
    assert tested.why_not_complete(document(path)) is None
    assert tested.why_not_complete(document(path, KEY)) == "this file is private (a key)"
    assert tested.why_not_complete(document(path, language="dotenv")) == "this file is private (.env)"
    assert tested.why_not_complete(document(path)) is None
    tested.settings = replace(tested.settings, paused_languages=("python",))
    assert tested.why_not_complete(document(path)) == "python is paused by dgemma.pausedLanguages"
    tested.settings = replace(tested.settings, paused_languages=(), enabled=False)
    assert tested.why_not_complete(document(path)) == OFF
