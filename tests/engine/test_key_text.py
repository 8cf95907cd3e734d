"""Key files in the encodings that shells and editors write."""

from __future__ import annotations

import codecs

import pytest
from dgemma_engine.key_text import encoding_of, key_lines

TEXT = "# kim\u00e4\r\nkey\n"


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_byte_order_mark_gives_the_encoding(mark: bytes, encoding: str) -> None:
    content = mark + TEXT.encode(encoding)
    assert encoding_of(content) == encoding
    assert key_lines(content) == ["# kim\u00e4", "key"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_incomplete_character_at_the_end_is_left_out(encoding: str) -> None:
    content = "key\n\U0001f511".encode(encoding)[:-1]
    assert key_lines(content, num_missing=1) == ["key"]
    with pytest.raises(ValueError, match="it is not text"):
        key_lines(content)


@pytest.mark.parametrize("content", [b"\xff", b"key\0", "key".encode("utf-16-le"), codecs.BOM_UTF16_LE + b"k"])
def test_binary_content_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="it is not text in UTF-8 or in UTF-16 with a byte order mark"):
        key_lines(content)
