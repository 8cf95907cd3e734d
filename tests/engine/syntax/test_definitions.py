from __future__ import annotations

import pytest
from dgemma_engine.syntax.definitions import DefinitionFinder

PYTHON = '''
import os

LIMIT = 3


@cached
def load(path: str, *, strict: bool = True) -> int:
    """Loads a file.

    At length.
    """
    with open(path) as file:
        text = file.read()
    secret_body = text
    return secret_body


class Store(Base):
    """Keeps things.

    At length.
    """

    size: int = 3

    def __init__(self, size: int) -> None:
        self.size = size
        self.things = []

    @property
    def is_full(self) -> bool:
        return len(self.things) == self.size


if os.name == "nt":
    def only_windows(): ...
'''

CASES = [
    ("python", PYTHON, "LIMIT", "LIMIT = 3"),
    ("python", PYTHON, "load", '@cached\ndef load(path: str, *, strict: bool = True) -> int:\n    """Loads a file.'),
    (
        "python",
        PYTHON,
        "Store",
        'class Store(Base):\n    """Keeps things.\n    size: int = 3\n    def __init__(self, size: int) -> None:\n'
        "    @property\n    def is_full(self) -> bool:",
    ),
    ("python", PYTHON, "only_windows", "def only_windows(): ..."),
    ("javascript", "export function add(a, b) { return a + b }\n", "add", "export function add(a, b) { return a + b }"),
    (
        "javascript",
        "export const add = (a, b) => {\n" + "  work()\n" * 8 + "}\n",
        "add",
        "export const add = (a, b) =>",
    ),
    (
        "typescript",
        "export interface Shape {\n  area: number\n}\n",
        "Shape",
        "export interface Shape {\n  area: number\n}",
    ),
    ("typescript", "export type Id = string | number\n", "Id", "export type Id = string | number"),
    (
        "typescript",
        "export class A {\n  x = 1\n  run(a: string): void {\n" + "    work()\n" * 8 + "  }\n}\n",
        "A",
        "export class A\n  x = 1\n  run(a: string): void",
    ),
    (
        "rust",
        "pub struct P { pub x: i32 }\n\nimpl P {\n    pub fn new(x: i32) -> P {\n"
        + "        work();\n" * 8
        + "    }\n}\n",
        "P",
        "pub struct P { pub x: i32 }\nimpl P\n    pub fn new(x: i32) -> P",
    ),
    (
        "go",
        "package a\n\ntype T struct {\n\tX int\n}\n\nfunc (t *T) Run(n int) error {\n" + "\twork()\n" * 8 + "}\n",
        "T",
        "type T struct {\n\tX int\n}\nfunc (t *T) Run(n int) error",
    ),
    ("go", "package a\n\nfunc Add(a, b int) int { return a + b }\n", "Add", "func Add(a, b int) int { return a + b }"),
    ("c", "#ifndef A_H\n#define A_H\nchar *name_of(int id);\n#endif\n", "name_of", "char *name_of(int id);"),
    ("c", "#define SIZE 3\n", "SIZE", "#define SIZE 3"),
    ("c", "struct point {\n  int x;\n};\n", "point", "struct point {\n  int x;\n}"),
    (
        "java",
        "public class A {\n  private int x;\n  public int get(int n) {\n" + "    work();\n" * 8 + "  }\n}\n",
        "A",
        "public class A\n  private int x;\n  public int get(int n)",
    ),
]


@pytest.mark.parametrize(("language", "text", "name", "expected"), CASES)
def test_definition_is_the_part_that_a_caller_needs(language: str, text: str, name: str, expected: str) -> None:
    finder = DefinitionFinder(clock=lambda: 0.0)
    assert finder.find(text, [name], language=language, path="") == {name: expected}


def test_find_returns_only_names_that_are_wanted_and_defined() -> None:
    finder = DefinitionFinder(clock=lambda: 0.0)
    assert list(finder.find(PYTHON, ["Store", "os", "LIMIT"], language="", path="a.py")) == ["LIMIT", "Store"]
    assert finder.find(PYTHON, [], language="python", path="") == {}


def test_long_definition_is_cut() -> None:
    text = "class A:\n" + "".join(f"    def f{n}(self):\n        pass\n" for n in range(100))
    found = DefinitionFinder(clock=lambda: 0.0).find(text, ["A"], language="python", path="")
    assert len(found["A"].splitlines()) == 40


@pytest.mark.parametrize(
    ("language", "text"), [("cobol", "x"), ("python", "def f(): ...\n" + "x = 1\n" * 50_000), ("python", ")(" * 50)]
)
def test_unreadable_text_defines_nothing(language: str, text: str) -> None:
    assert DefinitionFinder(clock=lambda: 0.0).find(text, ["f"], language=language, path="") == {}


def test_parse_that_takes_too_long_defines_nothing() -> None:
    times = iter(range(10_000))
    finder = DefinitionFinder(clock=lambda: float(next(times)))
    assert finder.find("def f(): ...\n" * 5_000, ["f"], language="python", path="") == {}
