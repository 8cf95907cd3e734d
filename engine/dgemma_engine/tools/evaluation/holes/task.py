"""One hole with the text that was taken out of it, and where known a test that tells whether an answer works."""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_engine.protocol.messages import Extent, Snippet

PYTHON = "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitTest:
    """A program that judges an answer by what it does.

    Attributes:
        code: Python that defines `check(candidate)`, which raises if the candidate is wrong.
        entry_point: name of the candidate in the filled file.
    """

    code: str
    entry_point: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One hole; `prefix + middle + suffix` is the file it was cut from.

    Attributes:
        task_id: unique in its hole file; results are paired by it.
        kind: what sort of hole it is; figures are given per kind.
        path: file path for the model to see; may be empty.
        language: LSP language id; may be empty.
        prefix: text before the hole.
        suffix: text after the hole.
        middle: the truth.
        snippets: text from elsewhere in the project, most relevant last.
        test: judges an answer by running it; None where there is no test.
    """

    task_id: str
    kind: str
    path: str = ""
    language: str = ""
    prefix: str
    suffix: str
    middle: str
    snippets: tuple[Snippet, ...] = ()
    test: UnitTest | None = None

    @property
    def extent(self) -> Extent:
        """How far the editor would let the answer reach."""
        return Extent.BLOCK if "\n" in self.middle or "\r" in self.middle else Extent.LINE

    def filled(self, text: str) -> str:
        """Returns the whole file with `text` in the hole."""
        return self.prefix + text + self.suffix
