from __future__ import annotations

import pytest

from dgemma_lsp.settings import OPTIONS, Settings, read_settings


def check(raw: object, expected: Settings, *fragments: str) -> None:
    """Checks what `raw` makes of the defaults, and that each fragment stands in the problem of its place."""
    settings, problems = read_settings(raw, Settings())
    assert settings == expected
    assert len(problems) == len(fragments), problems
    for problem, fragment in zip(problems, fragments, strict=True):
        assert fragment in problem


@pytest.mark.parametrize(
    "raw",
    [
        {"engine": {"model": "/m", "device": "cpu"}, "deadlineMs": 500},
        {"dgemma": {"engine": {"model": "/m", "device": "cpu"}, "deadlineMs": 500}},
        {"engine.model": "/m", "engine.device": "cpu", "deadlineMs": 500},
        {"dgemma.engine.model": "/m", "dgemma.engine.device": "cpu", "dgemma.deadlineMs": 500},
    ],
)
def test_nested_dotted_and_wrapped_are_the_same(raw: object):
    check(raw, Settings(engine_model="/m", engine_device="cpu", deadline_ms=500))


@pytest.mark.parametrize("raw", [None, {}, {"dgemma": None}, {"engine": {}}, {"seed": None}])
def test_nothing_said_changes_nothing(raw: object):
    check(raw, Settings())


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("deadline", "deadlineMs"), ("enable", "enabled"), ("engine.modl", "engine.model"), ("LOGLEVEL", "logLevel")],
)
def test_unknown_key_names_the_nearest(key: str, nearest: str):
    check({key: 1}, Settings(), f"did you mean dgemma.{nearest}?")


@pytest.mark.parametrize(
    ("raw", "fragment"),
    [
        ({"enabled": "yes"}, "dgemma.enabled must be true or false, not 'yes'"),
        ({"enabled": 1}, "dgemma.enabled must be true or false"),
        ({"deadlineMs": True}, "dgemma.deadlineMs must be a whole number from 50 to 60000"),
        ({"deadlineMs": 5}, "not 5"),
        ({"deadlineMs": 99.5}, "not 99.5"),
        ({"seed": -1}, "dgemma.seed"),
        ({"maxTokens": 0}, "dgemma.maxTokens"),
        ({"engine": {"model": " "}}, "dgemma.engine.model must be embedded or the path of a model folder"),
        ({"engine": {"device": "tpu"}}, "dgemma.engine.device must be auto, cpu, cuda or cuda:N"),
        ({"engine": 3}, "dgemma.engine is no setting"),
        ({"logLevel": "loud"}, "one of error, warning, info, debug"),
        ({"logLevel": ["x"] * 10_000}, "not list"),
        ([1], "must be an object, not list"),
        ("x", "must be an object, not str"),
    ],
)
def test_wrong_value_keeps_the_default(raw: object, fragment: str):
    check(raw, Settings(), fragment)


def test_right_keys_count_beside_wrong_ones():
    check({"seed": 7, "maxTokens": "x", "nope": {}}, Settings(seed=7), "maxTokens", "nope")


def test_settings_refuse_what_the_options_refuse():
    with pytest.raises(ValueError, match=r"dgemma\.deadlineMs must be a whole number"):
        Settings(deadline_ms=0)


def test_every_field_has_an_option():
    assert {option.field for option in OPTIONS} == set(Settings.__dataclass_fields__)


@pytest.mark.parametrize(
    "value", ["*.sql", [""], ["a", 3], ["a\nb"], ["!"], ["x"] * 1_001, ["x" * 5_000], {"a": 1}, [["a"]]]
)
def test_private_files_must_be_patterns(value: object):
    check({"privateFiles": value}, Settings(), "dgemma.privateFiles must be a list of at most 1000 patterns")


def test_private_files_are_read():
    check({"privateFiles": ["*.sql", "!a.sql", "~/x/"]}, Settings(private_files=("*.sql", "!a.sql", "~/x/")))


def test_settings_of_ten_megabytes_are_read():
    raw: dict[str, object] = {f"unknownSetting{index}": "x" * 40 for index in range(150_000)}
    raw |= {"seed": 7, "engine": {"model": "m" * 10_000_000}, "k" * 1_000_000: 1, "logLevel": ["x"] * 1_000_000}
    settings, problems = read_settings(raw, Settings())
    assert settings == Settings(seed=7)
    assert len(problems) == 6
    assert problems[-1] == "149998 more settings cannot be used; dgemma-lsp settings lists what can"
    assert max(map(len, problems)) < 250


def test_section_in_section_is_no_group():
    raw: object = {"seed": 7}
    for _ in range(100_000):
        raw = {"dgemma": raw}
    check(raw, Settings(), "dgemma.dgemma is no setting")
