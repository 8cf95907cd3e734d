"""What is private: neither completed nor read as context. The one place that decides it.

Asked in this order, and the first that knows decides: the setting `dgemma.privateFiles` (whose `!pattern` allows what
would be private otherwise), names that promise secrets, ignore files; then the first lines of the text. A link is as
private as what it leads to, and a document is private where any reading of its URI is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dgemma_lsp.documents.uri import Uri
from dgemma_lsp.privacy.gitignore_file import IgnoreFile, entries_of
from dgemma_lsp.privacy.gitignore_tree import IgnoreTree
from dgemma_lsp.privacy.secrets import SecretNames, kind_of_language, kind_of_text

# Schemes whose path is one of this machine's.
_LOCAL = {"", "file", "vscode-notebook-cell"}
_SPECIAL = re.compile(r"[\\*?\[\]]")
# Every folder of a path costs a look at each pattern and at the disk; a longer path is not looked at, but private.
_MAX_PATH_CHARS = 4_096
_MAX_FOLDERS = 64


class Privacy:
    """Says why a file is private. Reads ignore files only, never the file itself.

    Args:
        patterns: of the setting `dgemma.privateFiles`, in the syntax of `.gitignore`; they count in every folder,
            with a leading slash from the root of the disk, with a leading `~/` from the home folder.
        home: the user's home folder.
        clock: seconds that never go backwards.
        report: told in one sentence which lines of an ignore file do not say what they seem to.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        *,
        home: Path,
        clock: Callable[[], float],
        report: Callable[[str], None] = lambda _message: None,
    ) -> None:
        self._chosen = IgnoreFile.parse("\n".join(_everywhere(pattern, home) for pattern in patterns))
        self._names = SecretNames()
        self._tree = IgnoreTree(home=home, clock=clock, report=report)

    def why_not_read(self, path: Path, *, head: str = "") -> str | None:
        """Returns why a file must not be read as context, or None where it may be.

        Args:
            path: the file; need not exist.
            head: its first lines, for who has read them already: what they hold counts too.
        """
        if not path.is_absolute():
            path = Path.cwd() / path
        forms = _forms(str(path))
        return self._why_named(forms, local=True) or (None if self._are_allowed(forms) else _why(kind_of_text(head)))

    def why_not_complete(self, uri: str, language: str, head: str) -> str | None:
        """Returns why a document must not be completed, or None where it may be.

        Args:
            uri: the document's.
            language: LSP language id; may be empty.
            head: the first lines of its text.
        """
        parsed = Uri.parse(uri)
        local = parsed.scheme in _LOCAL
        forms = [
            form
            for reading in parsed.readings
            for form in (_forms(reading) if local and reading.startswith("/") else (reading,))
        ]
        if (why := self._why_named(forms, local=local)) or self._are_allowed(forms):
            return why
        return _why(kind_of_text(head)) or _why(kind_of_language(language))

    def is_secret(self, head: str) -> bool:
        """Whether the first lines of a text make it private, whatever it is called."""
        return kind_of_text(head) is not None

    def forget(self) -> None:
        """Takes note that an ignore file has changed."""
        self._tree.forget()

    def _why_named(self, paths: Iterable[str], *, local: bool) -> str | None:
        """Returns why one of a file's paths is private."""
        return next((why for path in paths if (why := self._judge(path, local=local))), None)

    def _judge(self, path: str, *, local: bool) -> str | None:
        """Returns why a path is private."""
        if len(path) > _MAX_PATH_CHARS or path.count("/") > _MAX_FOLDERS:
            limits = f"{_MAX_PATH_CHARS} characters or {_MAX_FOLDERS} folders"
            return _why(f"its path has more than {limits}")
        for entry in entries_of(path):
            rule = self._chosen.deciding(entry)
            if rule is not None and rule.names:
                return _why(f"dgemma.privateFiles: {rule.text.removeprefix('**/')}")
        if self._is_allowed(path):
            return None
        if kind := self._names.kind_of_path(path):
            return _why(kind)
        match = self._tree.match(Path(path)) if local and path.startswith("/") else None
        return _why(f"{match.file}: {match.line}") if match else None

    def _are_allowed(self, paths: Iterable[str]) -> bool:
        """Whether the settings allow every path of a file."""
        return all(map(self._is_allowed, paths))

    def _is_allowed(self, path: str) -> bool:
        """Whether the settings take the path, or a folder that it is in, back from what is private."""
        rules = [self._chosen.deciding(entry) for entry in entries_of(path)]
        return any(rule is not None and not rule.names for rule in rules)


def _everywhere(pattern: str, home: Path) -> str:
    sign, body = ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)
    if body.startswith("~/"):
        # A home folder's name may hold what has a meaning in a pattern.
        body = _SPECIAL.sub(r"\\\g<0>", str(home).rstrip("/")) + body[1:]
    return f"{sign}{body if body.startswith('/') else f'**/{body}'}"


def _forms(path: str) -> tuple[str, ...]:
    """Returns the absolute paths of a file: as it is spelled, and without links.

    Args:
        path: absolute. `..` after a link leads elsewhere than its spelling says.
    """
    given = os.path.normpath(path)
    return tuple(dict.fromkeys((given, _real(given), _real(path) if ".." in path else given)))


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return path


def _why(what: str | None) -> str | None:
    return f"this file is private ({what})" if what else None
