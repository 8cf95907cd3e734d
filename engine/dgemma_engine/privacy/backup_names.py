"""Name of a backup, swap file or copy -> the names that the original may have. Pure; for names in lower case.

The marks are those of editors (Emacs, Vim, nano, Kate, JetBrains, LibreOffice), package managers, file managers,
browsers, revision control (RCS), shadow-utils, and people.
"""

from __future__ import annotations

import re

# Names that one name leads to; editors and people leave chains of two or three marks.
_MOST_NAMES = 12
# No file system allows longer ones.
_MOST_CHARS = 255
_WORDS = (
    r"(?:bak|backup|back|bck|bkp|old|orig|original|org|save|saved|sav|copy|prev|previous|tmp|temp|dist|new|rej"
    r"|part|partial|crdownload|download|disabled|off|lock|enc)"
)
_ENDINGS = re.compile(
    rf"(?:[._\-]{_WORDS}[._\-]?\d*|[._\-](?:dpkg|ucf|rpm|pac)[._\-]?(?:old|new|dist|save|orig|bak|tmp)|\.\d+"
    r"|[._\-]\d{4}-?\d\d-?\d\d(?:[t._\-]?\d[\d:\-]*)?"
    r"|,v|(?<=[a-z])(?:-|\d{1,3})|(?:\.un|\.~\d+)?~|\.(?:kate-)?sw[a-p]|\.swpx|#|___jb_(?:tmp|old|bak)___|[-_ ]*\(\d+\)"
    r"|[-_ ]*copy(?: ?\d+| ?\(\d+\))?|[-_ ]*\(copy\))$"
)
# Vim and Kate put a dot before the name, Emacs `#` or `.#`, LibreOffice `.~lock.`.
_BEGINNINGS = re.compile(
    r"^(?:\.#|#|\.~lock\.|~\$?|backup[ _\-]of[ _\-]|(?:another )?copy[ _\-](?:\(\d+\)[ _\-])?of[ _\-])"
)
_SWAP = re.compile(r"\.(?:(?:kate-)?sw[a-p]|swpx|un~)$")
# `credentials (1).json`, `secrets-old.yml`: the mark stands before the ending.
_INSIDE = re.compile(rf"(?:[._\- ]{_WORDS}\d*|[-_ ]*\(\d+\)|[-_ ]*copy(?: ?\d+| ?\(\d+\))?|[-_]\d+|~)(?=\.[^.]+$)")


def originals_of(name: str) -> tuple[str, ...]:
    """Returns every name that `name` may be a backup of; empty for a name without marks.

    Args:
        name: of a file or folder, in lower case.
    """
    found: dict[str, None] = {}
    waiting = [name] if len(name) <= _MOST_CHARS else []
    while waiting and len(found) < _MOST_NAMES:
        for original in _one_step(waiting.pop()):
            if original and original != name and original not in found:
                found[original] = None
                waiting.append(original)
    return tuple(found)


def _one_step(name: str) -> list[str]:
    names = [pattern.sub("", name, count=1) for pattern in (_ENDINGS, _BEGINNINGS, _INSIDE)]
    if _SWAP.search(name):
        names.append(_SWAP.sub("", name).removeprefix("."))
    return [original for original in names if original != name]
