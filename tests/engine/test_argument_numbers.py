from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest
from dgemma_engine.argument_numbers import above_zero, not_negative, positive
from dgemma_engine.cli import main


@pytest.mark.parametrize(
    ("read", "good", "bad", "message"),
    [
        (positive, {"1": 1, "20": 20}, ("0", "-5", "1.5", "banana", ""), "a whole number of at least 1"),
        (not_negative, {"0": 0, "7": 7}, ("-1", "nan", "x"), "a whole number of at least 0"),
        (above_zero, {"0.5": 0.5, "3": 3.0}, ("0", "-1", "nan", "inf", "x"), "a number of more than 0"),
    ],
)
def test_number_is_read_or_refused_with_its_text(
    read: Callable[[str], float], good: dict[str, float], bad: tuple[str, ...], message: str
) -> None:
    assert {text: read(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=f"^'{text}' must be {message}$"):
            read(text)


@pytest.mark.parametrize(
    "command",
    [
        "plan tiny --context",
        "train config.toml --minutes",
        "train config.toml --threads",
        "adapt --corpus c --minutes",
        *(f"adapt --corpus c --minutes 1 --{name}" for name in ("threads", "rank", "rate", "documents", "holes")),
        "corpus out --vocab-size",
        "corpus out --package-bytes",
        "corpus-packages out --mib-per-language",
        "corpus-packages out --mib-per-package",
    ],
)
@pytest.mark.parametrize("text", ["0", "banana"])
def test_number_out_of_range_and_text_are_refused_alike(
    command: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), text])
    assert ended.value.code == 2
    assert f"argument {command.split()[-1]}: '{text}' must be a" in capsys.readouterr().err
