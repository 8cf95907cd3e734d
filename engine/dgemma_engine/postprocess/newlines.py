"""Line ends of any kind -> `\\n`. Pure."""

from __future__ import annotations


def normalize_newlines(text: str) -> str:
    """Returns a text with `\\n` for every `\\r\\n` and every lone `\\r`."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
