"""Which files are private: neither completed nor read. The one place that decides it for files of this machine.

Checked in this order, and the first that matches decides: the user's patterns (of the setting `dgemma.privateFiles`,
whose `!pattern` allows files that would be private otherwise), names of secrets, ignore files; then the first lines of
the text. A link is as private as its target.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dgemma_engine.path_style import HERE, PathStyle
from dgemma_engine.privacy.gitignore_file import IgnoreFile, entries_of
from dgemma_engine.privacy.gitignore_tree import IgnoreTree
from dgemma_engine.privacy.secrets import SecretNames, kind_of_text

_SPECIAL = re.compile(r"[\\*?\[\]]")
# Every folder of a path costs a comparison with each pattern and a read of the disk; a longer path is private unread.
_MAX_PATH_CHARS = 4_096
_MAX_FOLDERS = 64


class FilePrivacy:
    """Decides whether, and why, a file is private. Reads ignore files only, never the file itself.

    Args:
        patterns: of the setting `dgemma.privateFiles`, in the syntax of `.gitignore`; they count in every folder,
            with a leading slash from the root of the disk, with a leading `~/` from the home folder.
        home: the user's home folder.
        clock: seconds that never go backwards.
        report: called with one sentence about lines of an ignore file that do not mean what they seem to.
        style: of the system's paths.

    Attributes:
        style: as given.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        *,
        home: Path,
        clock: Callable[[], float],
        report: Callable[[str], None] = lambda _message: None,
        style: PathStyle = HERE,
    ) -> None:
        self.style = style
        self._home = style.comparable(str(home))
        self.configure(patterns)
        self._names = SecretNames()
        self._tree = IgnoreTree(home=home, clock=clock, report=report, style=style)

    def configure(self, patterns: Sequence[str]) -> None:
        """Replaces the patterns.

        Args:
            patterns: see the class.
        """
        lines = (_everywhere(self.style.folded(pattern), self.style.folded(self._home)) for pattern in patterns)
        self._chosen = IgnoreFile.parse("\n".join(lines))

    def why_not_read(self, path: Path, head: str = "") -> str | None:
        """Returns why a file must not be read as context, or None where it may be.

        Args:
            path: the file; need not exist.
            head: its first lines, where they are known: their content counts too.
        """
        if not path.is_absolute():
            path = Path.cwd() / path
        return self.why_private(self.forms(self.style.comparable(str(path))), head, is_local=True)

    def why_private(self, paths: Iterable[str], head: str, language: str = "", *, is_local: bool) -> str | None:
        """Returns why a file of several paths is private, or None where it is not.

        Args:
            paths: in the form for comparing.
            head: first lines of its text, as far as they are known.
            language: LSP language id; may be empty.
            is_local: whether the paths are of this machine, so that ignore files count.
        """
        what, is_allowed = self._judge(paths, is_local=is_local)
        what = what or (None if is_allowed else kind_of_text(head, language))
        return f"this file is private ({what})" if what else None

    def forms(self, path: str) -> tuple[str, ...]:
        """Returns the absolute paths of a file: as it is spelled, and without links.

        Args:
            path: absolute, in the form for comparing. `..` after a link leads elsewhere than its spelling says.
        """
        given = self.style.normalized(path)
        forms = {given: None}
        for spelled in (given, path) if ".." in path else (given,):
            native = self.style.native(spelled)
            try:
                forms[self.style.comparable(os.path.realpath(native)) if native else spelled] = None
            except (OSError, ValueError):
                forms[spelled] = None
        return tuple(forms)

    def is_secret(self, head: str) -> bool:
        """Whether the first lines of a text make it private, whatever it is called."""
        return kind_of_text(head) is not None

    def forget(self) -> None:
        """Reads the ignore files again when they are next needed."""
        self._tree.forget()

    def _judge(self, paths: Iterable[str], *, is_local: bool) -> tuple[str | None, bool]:
        """Returns why one of a file's paths is private, and whether the settings allow every path of it."""
        is_allowed = True
        for path in paths:
            if len(path) > _MAX_PATH_CHARS or path.count("/") > _MAX_FOLDERS:
                limits = f"{_MAX_PATH_CHARS} characters or {_MAX_FOLDERS} folders"
                return f"its path has more than {limits}", False
            entries = entries_of(self.style.folded(path))
            rules = [rule for entry in entries if (rule := self._chosen.deciding(entry)) is not None]
            for rule in rules:
                if rule.names:
                    return f"dgemma.privateFiles: {rule.text.removeprefix('**/')}", False
            if rules:
                continue
            is_allowed = False
            if kind := self._names.kind_of_path(path):
                return kind, False
            match = self._tree.match(path) if is_local and path.startswith("/") else None
            if match:
                return f"{match.file}: {match.line}", False
        return None, is_allowed


def _everywhere(pattern: str, home: str) -> str:
    sign, body = ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)
    if body.startswith("~/"):
        # A home folder's name may hold what has a meaning in a pattern.
        body = _SPECIAL.sub(r"\\\g<0>", home.rstrip("/")) + body[1:]
    return f"{sign}{body if body.startswith('/') else f'**/{body}'}"
