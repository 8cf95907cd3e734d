"""What a trace shows -> one HTML page that needs nothing else: no request, no framework, the data inside it.

Reads its three parts from the folder `trace_page` beside it. Text of the user's reaches the page as JSON only, and no
character of it can end the element that holds it.
"""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files
from typing import Any

from dgemma_lsp.commands.trace_report import TraceView

_SLOT = re.compile(r"\{\{(title|style|script|data)\}\}")
# What could end a script element, begin a comment in it, or break a line of JavaScript.
_UNSAFE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def to_html(view: TraceView) -> str:
    """Returns the page.

    Args:
        view: what it shows.
    """
    folder = files("dgemma_lsp.commands") / "trace_page"
    parts = {
        "title": html.escape(view.title),
        "style": (folder / "trace.css").read_text(encoding="utf-8").rstrip(),
        "script": (folder / "trace.js").read_text(encoding="utf-8").rstrip(),
        "data": embedded_json(view.data),
    }
    # In one pass: what is put in is not searched again.
    return _SLOT.sub(lambda slot: parts[slot.group(1)], (folder / "trace.html").read_text(encoding="utf-8"))


def embedded_json(value: Any) -> str:
    """Returns JSON that may stand inside a `script` element, whatever its strings hold."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_UNSAFE)
