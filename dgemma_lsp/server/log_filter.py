"""Log records on stderr: our own as they are, those of other packages without the values that they quote.

pygls logs whole message bodies: at INFO always, above it in some errors. Source text must not reach a log, so of its
records only the place, the wording and the kind of the error are kept.
"""

from __future__ import annotations

import copy
import logging
import re
import sys

_OURS = ("dgemma_lsp", "dgemma_engine")
_PLACEHOLDER = re.compile(r"%[-#0 +]*[\d.*]*[a-zA-Z]")


class WithoutValues(logging.Formatter):
    """Formats records that are not ours without their values."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record; leaves the record to other handlers as it is."""
        if not record.name.startswith(_OURS):
            kind = record.exc_info[0] if record.exc_info else None
            record = copy.copy(record)
            wording = _PLACEHOLDER.sub("...", str(record.msg).split("\n")[0])
            record.msg = wording + (f" ({kind.__name__})" if kind else "")
            record.args, record.exc_info, record.exc_text, record.stack_info = (), None, None, None
        return super().format(record)


def configure_logs(level: str) -> None:
    """Sends log records to stderr, from `level` (`error`, `warning`, `info`, `debug`) up; pygls's from warnings up."""
    root = logging.getLogger()
    if not any(isinstance(handler.formatter, WithoutValues) for handler in root.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(WithoutValues("%(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("pygls").setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
