"""Every command of every document is run, or another test that runs it is named; every option that is named exists.

`make test-docs`. A command is run as it is written, in a folder and a home of its own; only placeholders
(`DIR`, `FOLDER`) and models that would have to be fetched are replaced.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from dgemma_engine.checkpoint.builtin import model_folder
from dgemma_engine.cli import main as engine_main

from dgemma_lsp.cli import main as server_main
from tests.documents.blocks import ROOT, Block, blocks, inline_commands

pytestmark = pytest.mark.documents


@dataclass(frozen=True, slots=True)
class Run:
    """How a command is run.

    Attributes:
        output: what its output must hold, a regular expression.
        script: what is run in place of the command; empty for the command as it is written.
        code: exit code.
        ends: whether the command ends by itself; else it is ended once the output matches.
    """

    output: str
    script: str = ""
    code: int = 0
    ends: bool = True


@dataclass(frozen=True, slots=True)
class ByHand:
    """A command that no test runs.

    Attributes:
        why: the reason, and what was tried by hand.
    """

    why: str


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A command that takes too long for this test, or needs what is not installed for it.

    Attributes:
        by: the file that runs it.
    """

    by: str


ANSWER = (
    r"return>>.+<<\n\n\nprint\(mean\(\[1, 2, 3\]\)\)\n"
    r"\[(shown|unlikely): score \d\.\d+, ended by \w+ \w+, \d+ passes of the model, \d+ ms\]"
)
NO_ADAPTER = r"dgemma-engine: tree: .* `dgemma-engine adapters` lists those there are\n$"

# Parts of long commands.
KEYS = "~/.config/dgemma-lsp/team-keys"
TASKS = "tests/engine/tools"
CONFIGS = "engine/dgemma_engine/tools/training/configs"
TLS = "--tls-cert cert.pem --tls-key key.pem --allow-host gpu.example"

QUESTION = r"""'{"prompt": "def area(w, h):\n    return ", "suffix": "\n"}'"""
CURL = f"curl http://127.0.0.1:8012/v1/completions -H 'Content-Type: application/json' -d {QUESTION}"

COMMANDS: dict[str, Run | Elsewhere | ByHand] = {
    "cat mean.py": Run(r"(?s)^def mean\(values\):\n.*print\(mean\(\[1, 2, 3\]\)\)\n$"),
    "dgemma-lsp complete mean.py:3:11": Run(ANSWER),
    "dgemma-lsp complete FILE:LINE:COLUMN": Run(ANSWER, "dgemma-lsp complete mean.py:3:11"),
    "dgemma-lsp trace FILE:LINE:COLUMN --html OUT": Run(
        r"<!doctype html>(?s:.*)</html>", "dgemma-lsp trace mean.py:3:11 --html OUT > said && cat OUT"
    ),
    "dgemma-lsp complete FILE:LINE:COLUMN --model tiny": Run(ANSWER, "dgemma-lsp complete mean.py:3:11 --model tiny"),
    "dgemma-engine stop --all": Run(
        r"^(engine stopped \(pid \d+\)\n)+$", "dgemma-engine start --model tiny > said && dgemma-engine stop --all"
    ),
    "dgemma-engine stop --model tiny": Run(
        r"^(engine stopped \(pid \d+\)|no engine is running)\n$", "dgemma-engine stop --model tiny || true"
    ),
    "dgemma-engine rm small": Run(r"small is not there", code=1),
    "dgemma-lsp stats --delete": Run(r"stats\.json"),
    "dgemma-lsp doctor": Run(r"python +\S", code=0),
    "make demo": Elsewhere(".ci/run"),
    "make test": Elsewhere(".ci/run"),
    "pip install 'dgemma-lsp[ray]'": Elsewhere("Makefile"),
    "pip install 'dgemma-lsp[engine,http]'": Elsewhere("Makefile"),
    'pip install "dgemma-lsp[engine]"': Elsewhere("Makefile"),
    "dgemma-engine pull small": Elsewhere("Makefile"),
    f"mkdir -p {KEYS.rpartition('/')[0]} && touch {KEYS} && chmod 600 {KEYS}": Run("^$"),
    f"printf 'ann %s\\n' \"$(openssl rand -hex 24)\" >> {KEYS}": Run("^$"),
    "dgemma-engine serve --ray-example first_steps > team.yaml": Run(
        r"applications:(?s:.*)import_path: dgemma_engine", "dgemma-engine serve --ray-example first_steps"
    ),
    "dgemma-engine serve --ray team.yaml": Elsewhere("tests/e2e/test_ray_cluster.py"),
    "dgemma-engine corpus corpus": Elsewhere("tests/engine/tools/training/test_corpus.py"),
    f"dgemma-engine train {CONFIGS}/embedded.toml --corpus corpus --out run": Elsewhere(
        "tests/engine/tools/training/test_trainer.py"
    ),
    "dgemma-engine quantize run/best run/embedded --format int8": Run(
        r"(?i)error",
        "mkdir -p run && cp -r PLAIN run/best && dgemma-engine quantize run/best run/embedded --format int8",
    ),
    "dgemma-engine calibrate run/embedded HOLES": Run(
        r"threshold", "dgemma-engine calibrate run/embedded tree --holes 30 --kinds line"
    ),
    "python engine/bench/quality/infilling.py HOLES": Elsewhere("tests/test_bench_results.py"),
    "dgemma-engine corpus-packages runs/corpus.jsonl.gz": Elsewhere("tests/engine/tools/corpus/registries"),
    "dgemma-engine adapt --base small --corpus runs/corpus.jsonl.gz --out runs/adapter --minutes 170": Elsewhere(
        "tests/engine/tools/adaptation/test_trainer.py"
    ),
    "dgemma-engine adapt --base small --corpus runs/corpus.jsonl.gz --out runs/adapter --minutes 170 --resume": (
        Elsewhere("tests/engine/tools/adaptation/test_trainer.py")
    ),
    "dgemma-engine holes DIR --out holes.jsonl": Run(
        r"\d+ holes", "dgemma-engine holes tree --count 6 --out holes.jsonl"
    ),
    "dgemma-engine eval holes.jsonl [--model MODEL]": Run(
        r'"exact_match": [\d.]+', "dgemma-engine eval holes.jsonl --model TINY --out A.jsonl"
    ),
    "dgemma-engine calibrate MODEL FILES": Run(
        r"threshold", "cp -r TINY folder && dgemma-engine calibrate folder holes.jsonl"
    ),
    "dgemma-engine compare A.jsonl B.jsonl": Run(r"exact", "cp A.jsonl B.jsonl; dgemma-engine compare A.jsonl B.jsonl"),
    "dgemma-engine tune DIR": Elsewhere("tests/engine/tools/tuning/test_tune_command.py"),
    "dgemma-engine tune DIR --resume": Elsewhere("tests/engine/tools/tuning/test_tune_command.py"),
    "dgemma-engine tune --task FILE.jsonl --out DIR": Elsewhere(f"{TASKS}/tuning/task/test_task_commands.py"),
    "dgemma-engine fill --task FILE.jsonl --adapter DIR": Elsewhere(f"{TASKS}/tuning/task/test_task_commands.py"),
    "dgemma-engine train CONFIG --task FILE.jsonl --out RUN": Elsewhere(f"{TASKS}/training/test_task_data.py"),
    "dgemma-engine fill --task FILE.jsonl --model RUN/latest": Elsewhere(f"{TASKS}/training/test_task_data.py"),
    "dgemma-engine train engine/examples/sudoku/sudoku.toml --task train.jsonl --out run": Elsewhere(
        f"{TASKS}/training/test_task_data.py"
    ),
    "dgemma-engine adapters": Run(r"no repository was learnt yet"),
    "dgemma-engine adapters off DIR": Run(NO_ADAPTER, "dgemma-engine adapters off tree", code=1),
    "dgemma-engine adapters rm DIR --unfinished": Run(
        NO_ADAPTER, "dgemma-engine adapters rm tree --unfinished", code=1
    ),
    "dgemma-engine plan MODEL --format int4 --context 8192": Run(
        r"total planned +[\d,.]+ [MG]iB\n(?s:.*)it fits\n$",
        "dgemma-engine plan diffusiongemma --format int4 --context 8192 --memory 24",
    ),
    "dgemma-engine quantize SRC DST --format int8|int4|fp8|nvfp4": Run(
        r"(?i)error", "for f in int8 int4 fp8 nvfp4; do dgemma-engine quantize PLAIN dst-$f --format $f || exit; done"
    ),
    "dgemma-engine export SRC DST [--dtype float32]": Run(
        r"(?s)model\.safetensors", "dgemma-engine export PLAIN wide --dtype float32 && ls wide"
    ),
    f"dgemma-engine serve --share --http 0.0.0.0:8012 {TLS}": Run(
        r"address: https://gpu\.example:\d+\nkey: [0-9a-f]{48} (?s:.*)require\('dgemma'\)\.setup",
        f"dgemma-engine serve --model tiny --share --http 0.0.0.0:0 {TLS}",
        ends=False,
    ),
    CURL: ByHand("it needs a server that runs; tried with curl 7.88"),
    "dgemma-engine serve": Run(
        r"listening on http://127\.0\.0\.1:\d+\n", "dgemma-engine serve --model tiny --http 127.0.0.1:0", ends=False
    ),
    "ssh -N -L 8012:127.0.0.1:8012 gpu.example": ByHand("it needs a server of OpenSSH; tried with OpenSSH 9.2"),
    "ssh -N -o StreamLocalBindUnlink=yes "
    "-L LOCAL_FOLDER/engine-82cf2444c2.sock:REMOTE_FOLDER/engine-82cf2444c2.sock gpu.example": (
        ByHand("it needs a server of OpenSSH; tried with OpenSSH 9.2")
    ),
}


@pytest.fixture(scope="module")
def desk() -> Iterator[Path]:
    """A reader's folder, with a home and programs of its own, shared by all commands of this file."""
    # A socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="d-"))
    (folder / "home").mkdir()
    (folder / "bin").mkdir()
    for name, module in (("dgemma-engine", "dgemma_engine"), ("dgemma-lsp", "dgemma_lsp")):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        program.chmod(0o755)
    readme = next(block.text for block in blocks() if block.text.startswith("$ cat mean.py"))
    (folder / "mean.py").write_text(readme.partition("$ cat mean.py\n")[2].partition("$ ")[0])
    shutil.copytree(ROOT / "engine/dgemma_engine/postprocess", folder / "tree")
    authority = trustme.CA()
    certificate = authority.issue_cert("gpu.example")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    assert engine_main(["export", "tiny", str(folder / "PLAIN")]) == 0
    yield folder
    run(folder, "dgemma-engine stop --all")
    shutil.rmtree(folder)


def run(desk: Path, script: str, *, until: str = "") -> tuple[int, str]:
    """Returns exit code and output of a script for bash, errors included.

    Args:
        desk: the working folder.
        script: its source.
        until: ends it once the output has this; empty waits for its end.
    """
    packages = os.pathsep.join(str(ROOT / part) for part in (".", "engine", "kernels"))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")} | {
        "HOME": str(desk / "home"), "PATH": f"{desk / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": packages, "OMP_NUM_THREADS": "1",
        "DGEMMA_RUNTIME_DIR": str(desk / "run"),
    }  # fmt: skip
    script = script.replace("TINY", str(model_folder("tiny")))
    with subprocess.Popen(
        ["bash", "-c", f"exec {script}" if until else script],
        cwd=desk,
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        output = ""
        while until and not re.search(until, output) and (line := process.stdout.readline()):
            output += line
        if until:
            process.terminate()
        output += process.communicate(timeout=300)[0]
        return process.returncode, output


ALL = [(block, command) for block in blocks() for command in block.commands]


@pytest.mark.parametrize(
    "command", [command for _block, command in ALL], ids=[f"{block.place} {command[:60]}" for block, command in ALL]
)
def test_command_does_what_its_page_says(desk: Path, command: str) -> None:
    known = COMMANDS[command]
    if isinstance(known, ByHand):
        pytest.skip(f"not run: {known.why}")
    if isinstance(known, Elsewhere):
        assert (ROOT / known.by).exists()
        return
    code, output = run(desk, known.script or command, until="" if known.ends else known.output)
    assert re.search(known.output, output), output
    assert code == known.code or not known.ends, output


def test_every_command_listed_here_is_on_a_page() -> None:
    assert COMMANDS.keys() == {command for _block, command in ALL}


@pytest.mark.parametrize(("page", "command"), sorted(set(inline_commands())))
def test_named_command_and_its_options_exist(page: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = re.sub(r"[\[\]|\\]", " ", command).split()
    main = engine_main if program == "dgemma-engine" else server_main
    names = [words[0]] if not words[0].startswith("-") else []
    with pytest.raises(SystemExit) as ended:
        main([*names, "--help"])
    assert ended.value.code == 0, f"{page}: {command}"
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert options <= set(re.findall(r"--[a-z0-9-]+", capsys.readouterr().out)), f"{page}: {command}"


@pytest.mark.parametrize("block", [block for block in blocks() if block.language], ids=lambda block: block.place)
def test_json_toml_and_python_blocks_can_be_parsed(block: Block) -> None:
    """Blocks in the languages of other clients are read by those clients, in `make test-clients`."""
    parsers = {"json": json.loads, "toml": tomllib.loads, "python": ast.parse}
    parsers.get(block.language, str)(block.text)
