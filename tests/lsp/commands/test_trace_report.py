"""The data of a trace page, from recordings written as literals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from dgemma_engine.protocol.messages import Finish, Infill

from dgemma_lsp.commands.trace_report import trace_view
from tests.lsp.cursor import request_at
from tests.lsp.engine_process import STATUS_NOW
from tests.lsp.traces import corrected_trace, made_trace


def viewed(marked: str, *, line: int = 1, **options: Any) -> dict[str, Any]:
    return trace_view(request_at(marked), line, 5, made_trace(**options), STATUS_NOW).data


def test_source_is_eight_lines_before_the_cursor_and_four_after() -> None:
    marked = "".join(f"line {number}\n" for number in range(1, 41)) + "x = |)  # end\n" + "after\n" * 40
    source = viewed(marked, line=41)["source"]
    before = source["before"].split("\n")
    assert (before[-1], before[0], source["first_line"]) == ("x = ", "line 33", 33)
    assert source["after"].split("\n") == [")  # end", *["after"] * 4]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_source_has_line_feeds_only(line_end: str) -> None:
    source = viewed(f"a{line_end}x = |{line_end}b{line_end}", line=2)["source"]
    assert (source["before"], source["after"], source["first_line"]) == ("a\nx = ", "\nb", 1)


def test_empty_file() -> None:
    assert viewed("|")["source"] == {"before": "", "after": "", "first_line": 1}


def test_long_lines_are_cut_away_from_the_cursor() -> None:
    source = viewed("b" * 5_000 + "|" + "a" * 5_000)["source"]
    assert (len(source["before"]), source["before"][:2], len(source["after"])) == (401, "…b", 400)


def test_outcome_is_what_the_editor_would_show() -> None:
    data = viewed("x = |)", text="f(1)", covered=1)
    assert (data["outcome"]["text"], data["outcome"]["covered"]) == ("f(1)", 1)
    assert (data["outcome"]["score"], data["threshold"]) == (0.7512, 0.1)
    assert viewed("x = |", text="")["outcome"]["text"] == ""


def test_title_names_the_place() -> None:
    view = trace_view(request_at("x = |"), 7, 5, made_trace(), STATUS_NOW)
    assert view.title == "a.py:7:5"
    assert view.data["place"] == {"file": "a.py", "line": 7, "column": 5}


@pytest.mark.parametrize(
    ("model", "device", "description", "where"),
    [
        ("tiny", "cpu", "by the model in the package", "the processor"),
        ("big", "cuda:0", "by big", "cuda:0"),
    ],
)
def test_model_is_named(model: str, device: str, description: str, where: str) -> None:
    status = replace(STATUS_NOW, model=model, device=device)
    told = trace_view(request_at("x = |"), 1, 5, made_trace(), status).data["model"]
    assert (told["description"], told["device"]) == (description, where)


def test_steps_have_rows_marks_and_rounded_numbers() -> None:
    data = viewed("x = |")
    (canvas,) = data["canvases"]
    fill, one, line_end = range(3)
    assert (data["tokens"], data["num_marks"]) == (["<fill>", " one", "\n"], 1)
    assert [row["kind"] for row in canvas["rows"]] == ["slot", "seed"]
    assert (canvas["rows"][1]["seed"], canvas["rows"][0]["head"]) == (" one", [line_end] * 9)
    first, last = canvas["steps"]
    assert ([row["row"] for row in first["rows"]], [row["row"] for row in last["rows"]]) == ([0, 1], [0])
    assert (first["temperature"], first["ms"], last["temperature"]) == (0.8, 7.123, 0.7)
    row = first["rows"][0]
    assert (row["accepted"], row["next"], row["entropy"][0]) == ([1, 0, 0], [one, fill, fill], 1.235)
    assert row["others"][0] == [[one, 0.75]], "alternatives of almost no probability are left out"
    assert (last["rows"][0]["accepted"], last["rows"][0]["next"]) == ([], [])


def test_renoised_token_is_corrected_once_another_is_accepted() -> None:
    data = trace_view(request_at("x = |"), 1, 5, corrected_trace(), STATUS_NOW).data
    first_token = data["tokens"].index("a")
    corrected = [step["rows"][0]["corrected"] for step in data["canvases"][0]["steps"]]
    assert corrected == [{}, {}, {}, {0: first_token}, {0: first_token}]


def test_candidates_come_with_their_verdicts() -> None:
    first, second = viewed("x = |")["candidates"]
    assert (first["verdict"], first["source"], first["score"]) == ("shown", "diffusion", 0.7512)
    assert first["features"] == {"middle_mean": -0.5}
    assert (second["verdict"], second["text"], second["features"]) == ("syntax", "((", {})


def test_request_that_ended_early_is_shown_too() -> None:
    trace = replace(made_trace(text=""), canvases=(), candidates=(), infill=Infill(text="", finish=Finish.DEADLINE))
    data = trace_view(request_at("x = |"), 1, 5, trace, STATUS_NOW).data
    assert (data["canvases"], data["candidates"], data["outcome"]["finish"]) == ([], [], "deadline")


def test_autoregressive_text_has_tokens_probabilities_and_times() -> None:
    (writing,) = viewed("x = |", text="1 + 1")["writings"]
    _, one, line_end = range(3)
    assert (writing["forced"], writing["num_drafted"], writing["text"]) == ([], 2, "1 + 1")
    assert writing["passes"] == [
        {
            "ms": 3.142,
            "tokens": [one, line_end],
            "entropy": [0.25, 1.235],
            "others": [[[one, 0.9]], [[line_end, 0.6], [one, 0.4]]],
            "num_agreed": 1,
            "draft": one,
            "ended": True,
        }
    ]
