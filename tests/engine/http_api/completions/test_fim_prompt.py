from __future__ import annotations

import pytest
from dgemma_engine.http_api.completions.fim_prompt import parse_fim, read_prompt

P, S = "def f():\n    return ", "\n\nprint(f())\n"
DEEPSEEK = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")


@pytest.mark.parametrize(
    "prompt",
    [
        f"<|fim_prefix|>{P}<|fim_suffix|>{S}<|fim_middle|>",
        f"<|fim_prefix|> {P} <|fim_suffix|>{S} <|fim_middle|>",
        f"<fim_prefix>{P}<fim_suffix>{S}<fim_middle>",
        f"<PRE> {P} <SUF>{S} <MID>",
        f"<PRE>{P} <SUF> {S} <MID>",
        f"<PRE>{P}<SUF>{S}<MID>",
        f"<SUF>{S}<PRE>{P}<MID>",
        f"{DEEPSEEK[0]}{P}{DEEPSEEK[1]}{S}{DEEPSEEK[2]}",
        f"[SUFFIX]{S}[PREFIX]{P}",
        f"[SUFFIX]{S}[PREFIX]{P}[MIDDLE]",
        f"<|code_prefix|>{P}<|code_suffix|>{S}<|code_middle|>",
        f"<|code_suffix|>{S}<|code_prefix|>{P}<|code_middle|>",
        f"<[fim-prefix]>{P}<[fim-suffix]>{S}<[fim-middle]>",
    ],
)
def test_parse_fim_reads_each_template_exactly(prompt: str) -> None:
    found = parse_fim(prompt)
    assert found is not None
    assert (found.prefix, found.suffix, found.path, found.snippets) == (P, S, "", ())


@pytest.mark.parametrize(
    ("template", "repository", "marker"),
    [
        ("<|fim_prefix|>{P}<|fim_suffix|>{S}<|fim_middle|>", "<|repo_name|>r\n", "<|file_sep|>"),
        ("<|fim_prefix|>{P}<|fim_suffix|>{S}<|fim_middle|>", "", "<|file_separator|>"),
        ("<fim_prefix>{P}<fim_suffix>{S}<fim_middle>", "<reponame>r\n", "<file_sep>"),
        ("<fim_prefix>{P}<fim_suffix>{S}<fim_middle>", "<repo_name>r\n", "<filename>"),
    ],
)
def test_parse_fim_reads_the_files_before_a_template(template: str, repository: str, marker: str) -> None:
    files = f"{repository}{marker}a.py\nA = 1\n{marker}b.py\nB = 2\n{marker}c.py\n"
    found = parse_fim(files + template.format(P=P, S=S))
    assert found is not None
    assert (found.prefix, found.suffix, found.path) == (P, S, "c.py")
    assert [(one.path, one.text) for one in found.snippets] == [("a.py", "A = 1\n"), ("b.py", "B = 2\n")]


def test_parse_fim_reads_the_files_of_codestral_within_the_prefix() -> None:
    found = parse_fim(f"[SUFFIX]{S}[PREFIX]+++++ a.py\nA = 1\n\n+++++ c.py\n{P}")
    assert found is not None
    assert (found.prefix, found.suffix, found.path) == (P, S, "c.py")
    assert [(one.path, one.text) for one in found.snippets] == [("a.py", "A = 1\n\n")]


def test_parse_fim_reads_unmarked_text_before_the_template_as_a_snippet() -> None:
    found = parse_fim(f"  # helpers\n<fim_prefix>{P}<fim_suffix>{S}<fim_middle>")
    assert found is not None
    assert [(one.path, one.text) for one in found.snippets] == [("", "  # helpers\n")]


def test_parse_fim_takes_tokens_of_the_document_as_text_before_the_cursor() -> None:
    above = f'T = "<|fim_prefix|><|fim_suffix|><|fim_middle|>"\n{P}'
    found = parse_fim(f"<|fim_prefix|>{above}<|fim_suffix|>{S}<|fim_middle|>")
    assert found is not None and (found.prefix, found.suffix) == (above, S)
    codestral = parse_fim(f"[SUFFIX]{S}[PREFIX]a = '[PREFIX]'\n{P}")
    assert codestral is not None and (codestral.prefix, codestral.suffix) == (f"a = '[PREFIX]'\n{P}", S)


@pytest.mark.parametrize("blank", [" ", "\n", ""])
def test_parse_fim_keeps_the_blanks_of_the_text(blank: str) -> None:
    found = parse_fim(f"<fim_prefix>{P}{blank}<fim_suffix>{blank}{S}<fim_middle>")
    assert found is not None and (found.prefix, found.suffix) == (P + blank, blank + S)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        P,
        f"<fim_prefix>{P}<fim_suffix>{S}",
        f"<fim_prefix>{P}<fim_suffix>{S}<fim_middle>\n",
        f"{P}<fim_middle>",
        f"<fim_prefix>{P}<fim_middle>",
        f"[SUFFIX]{S}",
        f"# reads [SUFFIX] and [PREFIX]\n{P}",
        f"# reads [PREFIX] and [SUFFIX]\n{P}",
        f"[PREFIX]{P}[SUFFIX]{S}",
        f"<fim_prefix>{P}<fim_suffix>{S}<fim_middle><|assistant|>\n",
    ],
)
def test_parse_fim_of_a_prompt_without_a_whole_template_is_none(prompt: str) -> None:
    assert parse_fim(prompt) is None


def test_read_prompt_without_a_template_is_the_text_before_the_cursor() -> None:
    assert (read_prompt(P, None).prefix, read_prompt(P, None).suffix) == (P, "")
    assert (read_prompt(P, S).prefix, read_prompt(P, S).suffix) == (P, S)


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize(
    ("files", "snippets"),
    [
        ("", []),
        ("###REFERENCE:\n###PATH:a.py\nA = 1\n###PATH:b.py\nB = 2\n\n", [("a.py", "A = 1\n"), ("b.py", "B = 2\n\n")]),
    ],
)
def test_parse_fim_reads_codegeex_in_a_turn_of_a_chat(files: str, snippets: list[tuple[str, str]], end: str) -> None:
    head = f"<|user|>\n{files}###PATH:m.py\n###LANGUAGE:python\n###MODE:BLOCK\n"
    found = parse_fim(f"{head}<|code_suffix|>{S}<|code_prefix|>{P}<|code_middle|><|assistant|>{end}")
    assert found is not None
    assert (found.prefix, found.suffix, found.path) == (P, S, "m.py")
    assert [(one.path, one.text) for one in found.snippets] == snippets
