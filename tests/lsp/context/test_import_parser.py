from __future__ import annotations

import pytest

from dgemma_lsp.context.import_parser import imports_of

PYTHON = ("pkg/mod.py", "pkg/mod/__init__.py")
CASES = [
    ("python", "from pkg.mod import a, b as c", PYTHON, False, ("a", "b")),
    ("python", "from pkg.mod import (\n    a,  # why\n    b,\n)", PYTHON, False, ("a", "b")),
    ("python", "from .mod import a", ("mod.py", "mod/__init__.py"), True, ("a",)),
    ("python", "from ...mod import a", ("../../mod.py", "../../mod/__init__.py"), True, ("a",)),
    ("python", "from . import a", ("__init__.py",), True, ("a",)),
    ("python", "from . import a\na.b(a.c, a.b)", ("a.py", "a/__init__.py"), True, ("b", "c")),
    ("python", "import pkg.mod\npkg.mod.run()", PYTHON, False, ("run",)),
    ("python", "import pkg.mod as m, os\nm.run()", PYTHON, False, ("run",)),
    ("python", "def f():\n    from pkg.mod import a", PYTHON, False, ("a",)),
    ("javascript", "import {a, b as c} from './x/y'", "x/y", True, ("a", "b")),
    ("javascript", "import d, {a} from '../x'", "../x", True, ("a", "d")),
    ("typescript", "import type {A} from './x.js'", "x", True, ("A",)),
    ("typescript", "import {\n  type A,\n  b,\n} from './x'", "x", True, ("A", "b")),
    ("javascript", "import * as ns from './x'\nns.go()", "x", True, ("go",)),
    ("javascript", "const {a, b: c} = require('./x')", "x", True, ("a", "b")),
    ("typescriptreact", "export {a} from './x'", "x", True, ("a",)),
    ("rust", "use crate::a::b::{C, d as e};", ("src/a/b.rs", "src/a/b/mod.rs", "a/b.rs", "a/b/mod.rs"), False, "Cd"),
    ("rust", "use super::x::Y;", ("../x.rs", "../x/mod.rs", "x.rs", "x/mod.rs"), True, "Y"),
    ("rust", "mod x;\nfn f() { x::go() }", ("x.rs", "x/mod.rs"), True, ("go",)),
    (
        "go",
        'import (\n\t"h.com/me/a/b"\n)\nfunc f() { b.Run() }',
        ("me/a/b/b.go", "a/b/b.go", "b/b.go"),
        False,
        ("Run",),
    ),
    ("go", 'import q "h.com/a"\nfunc f() { q.Run() }', ("a/a.go",), False, ("Run",)),
    ("java", "import a.b.C;", ("a/b/C.java", "src/main/java/a/b/C.java"), False, "C"),
    ("c", '#include "a/b.h"\nint x = run();', ("a/b.h",), True, ("include", "int", "run")),
]


@pytest.mark.parametrize(("language", "text", "paths", "is_local", "names"), CASES)
def test_imported_file_and_names(
    language: str, text: str, paths: str | tuple[str, ...], is_local: bool, names: str | tuple[str, ...]
) -> None:
    found = [one for one in imports_of(text, language) if set(one.names) == set(names) and one.is_local == is_local]
    assert found, imports_of(text, language)
    if isinstance(paths, str):
        assert f"{paths}.ts" in {path.removeprefix("./") for path in found[0].paths}
    else:
        assert found[0].paths == paths


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "import os\n"),
        ("python", "from \nimport \nfrom . import\nfrom x import ("),
        ("python", "x = 'from a import b'\n"),
        ("python", "from a import *"),
        ("javascript", "import React from 'react'"),
        ("javascript", "import {"),
        ("rust", "use std::io::Read;"),
        ("rust", "use crate::;"),
        ("go", 'import "fmt"\nfunc f() { fmt.Println() }'),
        ("c", "#include <stdio.h>"),
        ("cobol", "from a import b"),
        ("", ""),
    ],
)
def test_what_is_no_import_of_the_project_gives_nothing(language: str, text: str) -> None:
    assert imports_of(text, language) == []


@pytest.mark.parametrize("language", ["python", "javascript", "rust", "go", "java", "c"])
def test_any_beginning_of_an_import_can_be_read(language: str) -> None:
    for kind, text, *_ in CASES:
        if kind == language:
            for end in range(len(text)):
                imports_of(text[:end], language)
