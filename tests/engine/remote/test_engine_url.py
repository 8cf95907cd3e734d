from __future__ import annotations

import pytest
from dgemma_engine.remote.engine_url import EngineUrl


@pytest.mark.parametrize(
    ("text", "base", "place"),
    [
        ("https://GPU.example", "https://gpu.example", "gpu.example"),
        ("https://gpu.example:8012/", "https://gpu.example:8012", "gpu.example:8012"),
        (" http://127.0.0.1:8012 ", "http://127.0.0.1:8012", "127.0.0.1:8012"),
        (
            "https://gpu_1.xn--rksmrgs-5wao1o.example.",
            "https://gpu_1.xn--rksmrgs-5wao1o.example.",
            "gpu_1.xn--rksmrgs-5wao1o.example.",
        ),
        ("https://[fe80::1%eth0]", "https://[fe80::1%eth0]", "[fe80::1%eth0]"),
        ("http://[::1]:8012/engines/a/", "http://[::1]:8012/engines/a", "[::1]:8012"),
    ],
)
def test_url_is_read(text: str, base: str, place: str) -> None:
    url = EngineUrl.parse(text)
    assert (url.base, url.place) == (base, place)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gpu.example:8012", "is no URL of HTTP"),
        ("ftp://gpu.example", "is no URL of HTTP"),
        ("https://", "is no URL of HTTP"),
        ("https://gpu .example", "is no URL of HTTP"),
        ("https://gpu.example:port", "is no URL;"),
        ("https://[::1", "is no URL;"),
        ("https://kim:secret@gpu.example", "must hold no user name or password"),
        ("https://gpu.exa\0mple", "holds a character that cannot be seen (U+0000); write one such as"),
        ("https://gpu.example\u200b", "holds a character that cannot be seen (U+200B)"),
        ("https://gpu.exa\tmple", "holds a character that cannot be seen (U+0009)"),
        ("https://gpu.example/\u202e", "holds a character that cannot be seen (U+202E)"),
        ("https://\ud800.example", "holds a character that cannot be seen (U+D800)"),
        ("https://127\u30020\u30020\u30021", "must name its host in ASCII"),
        ("https://gpu..example", "names no host that can be asked"),
        ("https://gpu<.example", "names no host that can be asked"),
        (f"https://{'a' * 64}", "names no host that can be asked"),
        (f"https://{'a.' * 200}example", "names no host that can be asked"),
        ("https://gpu.example:0", "names no host that can be asked"),
        ("https://gpu.example/?x=1", "must end before ? and #"),
        ("https://gpu.example/#x", "must end before ? and #"),
    ],
)
def test_wrong_url_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError) as error:
        EngineUrl.parse(text)
    assert why in str(error.value)
    assert "secret" not in str(error.value), "a password must not be shown"


@pytest.mark.parametrize(
    ("text", "plain_hosts", "is_allowed"),
    [
        ("https://gpu.example", (), True),
        ("http://gpu.example", (), False),
        ("http://gpu.example", ("other.example",), False),
        ("http://gpu.example:8012", (" GPU.example ",), True),
        ("http://127.0.0.1:8012", (), True),
        ("http://127.8.0.1", (), True),
        ("http://[::1]:8012", (), True),
        ("http://localhost:8012", (), True),
        ("http://localhost.example", (), False),
        ("http://10.0.0.7", (), False),
        ("http://0.0.0.0", (), False),
    ],
)
def test_plain_http_beyond_this_machine_is_refused_unless_named(
    text: str, plain_hosts: tuple[str, ...], is_allowed: bool
) -> None:
    why = EngineUrl.parse(text).refusal(plain_hosts)
    assert (not why) is is_allowed
    assert is_allowed or "unencrypted" in why
