from __future__ import annotations

import pytest

from dgemma_lsp.settings.reader import SettingsOf, read_settings
from dgemma_lsp.settings.settings import OPTIONS, Settings


def check(raw: object, expected: Settings, *fragments: str) -> None:
    """Checks the settings that `raw` gives over the defaults, and that each problem holds its fragment."""
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
def test_missing_values_change_nothing(raw: object):
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
        ({"engine": {"model": " "}}, "dgemma.engine.model must be a short name or the path of a model"),
        ({"engine": {"device": "tpu"}}, "dgemma.engine.device must be auto, cpu, cuda or cuda:N"),
        ({"engine": 3}, "dgemma.engine is no setting"),
        ({"logLevel": "loud"}, "one of error, warning, info, debug"),
        ({"logLevel": ["x"] * 10_000}, "not a list"),
        ([1], "must be an object, not a list"),
        ("x", "must be an object, not 'x'"),
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
    ("value", "fragment"),
    [
        (
            {"a": 1},
            "dgemma.privateFiles must be a list of at most 1000 patterns as in .gitignore, not an object",
        ),
        (7, "not 7"),
        (True, "not true"),
        (10**30, "not so large a number"),
        ("", "not ''"),
        ([""], "entry 1 cannot be used: '' is not a pattern as in .gitignore, such as *.pem"),
        (
            [None],
            "entry 1 cannot be used: it must be a pattern as in .gitignore, such as *.pem, not null",
        ),
        ([["a"]], "not a list"),
        (["a\nb"], "entry 1 cannot be used"),
        (["!"], "entry 1 cannot be used"),
        (["x" * 5_000], "it has 5000 characters; at most 512 are allowed"),
    ],
)
def test_private_files_without_a_usable_pattern_keep_the_value_before(value: object, fragment: str):
    before = Settings(private_files=("*.sql",))
    settings, (problem,) = read_settings({"privateFiles": value}, before)
    assert settings == before
    assert fragment in problem
    assert problem.endswith("; the value before holds")


@pytest.mark.parametrize(
    ("bad", "fragment"),
    [
        ("", "entry 2 cannot be used: '' is not a pattern as in .gitignore"),
        (None, "not null"),
        (3, "not 3"),
        (False, "not false"),
        (1.5, "not 1.5"),
        (["*.sql"], "not a list"),
        ({"pattern": "*.sql"}, "not an object"),
        ("!", "'!' is not a pattern"),
        ("a\nb", "is not a pattern"),
        ("x" * 5_000, "it has 5000 characters"),
        ("a[b", "'a[b': [ has no closing ]; write \\[ for the character itself"),
        ("a\\", "it ends with a backslash; write \\\\ for the character itself"),
        ("[[:foo:]]", "there is no class [:foo:]"),
        ("[z-a]", "the range z-a names z only; write a-z"),
        ("./a.py", "no path holds //, ./ or ../; write the path without them"),
        ("a//b", "no path holds //"),
        ("!../b", "no path holds //"),
        ("**/*.{py,js}", "braces stand for themselves; write a pattern for each name"),
        ("*.py;*.js", "one entry is one pattern"),
        ("*.py, *.key", "one entry is one pattern"),
        ("  *.py", "the blank in front belongs to the name"),
        ("secret\\*.py", "write / between folders"),
        ("src\\keys", "write / between folders"),
        ("~bob/x", "variables and ~name are not replaced"),
        ("$HOME/x", "variables and ~name are not replaced"),
        ("%USERPROFILE%/x", "variables and ~name are not replaced"),
    ],
)
def test_private_files_keep_their_good_entries_and_name_the_bad_one(bad: object, fragment: str):
    settings, (problem,) = read_settings({"privateFiles": ["*.py", bad, "!b.py"]}, Settings())
    assert settings == Settings(private_files=("*.py", "!b.py"))
    assert problem.startswith("dgemma.privateFiles: entry 2 cannot be used: ")
    assert problem.endswith("; the other entries hold")
    assert fragment in problem


def test_several_bad_entries_are_one_problem():
    settings, (problem,) = read_settings({"privateFiles": ["", "a", None, "[", {}, 5, 6]}, Settings())
    assert settings.private_files == ("a",)
    assert "entry 1 cannot be used" in problem
    assert "; nor can entries 3, 4, 5 and 2 more; the other entries hold" in problem


def test_a_text_in_place_of_a_list_counts_as_its_only_entry():
    check({"privateFiles": "*.sql"}, Settings(private_files=("*.sql",)), "not '*.sql'; it counts as a list of one")
    check({"pausedLanguages": "go"}, Settings(paused_languages=("go",)), "not 'go'; it counts as a list of one")


def test_entries_beyond_the_longest_list_are_named():
    values = [f"*.{number}" for number in range(1_200)]
    settings, (problem,) = read_settings({"privateFiles": values}, Settings())
    assert settings.private_files == tuple(values[:1_000])
    assert problem == "dgemma.privateFiles has 1200 entries, and the first 1000 are used; shorten the list"


@pytest.mark.parametrize("raw", [{"a": "*.py"}, [["*.py"]], 7, [None]])
def test_private_files_that_cannot_be_used_keep_the_value_before(raw: object):
    held = Settings(private_files=("*.sql",))
    settings, (problem,) = read_settings({"privateFiles": raw}, Settings(), held)
    assert settings == held
    assert problem.endswith("; the value before holds")


@pytest.mark.parametrize("raw", [{"a": "*.py"}, [["*.py"]], [{"a": 1}]])
def test_first_private_files_that_cannot_be_used_make_every_file_private(raw: object):
    settings, (problem,) = read_settings({"privateFiles": raw}, Settings())
    assert settings == Settings(private_files=("*",))
    assert problem.endswith("; until it is mended this holds: *")


@pytest.mark.parametrize("name", ["*", "*.py", "a/b", "python,go"])
def test_what_is_no_language_id_is_named(name: str):
    settings, (problem,) = read_settings({"pausedLanguages": [name, "go"]}, Settings())
    assert settings.paused_languages == ("go",)
    assert "entry 1 cannot be used" in problem


def test_number_that_cannot_be_used_names_the_default():
    check({"deadlineMs": "soon"}, Settings(), "not 'soon'; the default holds: 3000")


def test_empty_list_removes_the_value_before():
    assert read_settings({"privateFiles": []}, Settings(private_files=("a",))) == (Settings(), ())


def test_workspace_adds_private_files_after_those_of_the_user():
    user = Settings(private_files=("secret/", "!a.env"))
    settings, problems = read_settings({"privateFiles": ["*.sql", "secret/"]}, user, user, of=SettingsOf.WORKSPACE)
    assert (settings.private_files, problems) == (("secret/", "!a.env", "*.sql"), ())
    assert read_settings({"privateFiles": []}, user, settings, of=SettingsOf.WORKSPACE) == (user, ())


def test_workspace_that_removes_private_files_is_refused():
    user = Settings(private_files=("secret/",))
    raw = {"privateFiles": ["!secret/", "*.sql", "!.env"]}
    settings, (problem,) = read_settings(raw, user, user, of=SettingsOf.WORKSPACE)
    assert settings.private_files == ("secret/", "*.sql")
    assert problem.startswith("dgemma.privateFiles: '!secret/' is ignored here: a workspace may add entries")


def test_workspace_fills_the_list_of_private_files_up_to_its_end():
    user = Settings(private_files=tuple(f"*.{number}" for number in range(600)))
    raw = {"privateFiles": [f"w.{number}" for number in range(600)]}
    settings, (problem,) = read_settings(raw, user, user, of=SettingsOf.WORKSPACE)
    assert settings.private_files[:600] == user.private_files
    assert settings.private_files[600:] == tuple(f"w.{number}" for number in range(400))
    assert problem == "dgemma.privateFiles: the first 1000 entries of user and workspace are used"


def test_private_files_of_a_workspace_that_cannot_be_used_make_every_file_private():
    settings, (problem,) = read_settings({"privateFiles": {"a": 1}}, Settings(), of=SettingsOf.WORKSPACE)
    assert settings.private_files == ("*",)
    assert problem.endswith("; until it is mended this holds: *")


def test_paused_languages_keep_their_good_entries_and_name_the_bad_one():
    check(
        {"pausedLanguages": ["python", "a, b", None, "C++"]},
        Settings(paused_languages=("python", "C++")),
        "dgemma.pausedLanguages: entry 2 cannot be used: 'a, b' is not a language id without blanks, such as markdown"
        "; nor can entry 3; the other entries hold",
    )


def test_private_files_are_read():
    check(
        {"privateFiles": ["*.sql", "!a.sql", "~/x/", "~$*"]}, Settings(private_files=("*.sql", "!a.sql", "~/x/", "~$*"))
    )


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


def test_old_name_of_a_model_means_the_new_one_and_is_reported():
    settings, problems = read_settings({"engine": {"model": "embedded"}}, Settings())
    assert settings == Settings(engine_model="tiny")
    assert problems == ("dgemma.engine.model: 'embedded' is called 'tiny' now; write that",)
