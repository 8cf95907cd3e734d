"""The arguments of the command `dgemma-lsp`: options, their values and their help."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dgemma_engine.model_store.catalogue import DEFAULT_MODEL

from dgemma_lsp import __version__
from dgemma_lsp.settings.settings import OPTIONS, SECTION

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class _Parser(argparse.ArgumentParser):
    """A parser whose `--version` and `--help` fail where standard output cannot be written."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if file is sys.stdout:
            sys.stdout.write(message)
        else:
            super()._print_message(message, file)


def argument_parser() -> argparse.ArgumentParser:
    """Returns the parser; `command` in its result is the name of the subcommand, `serve` without one."""
    parser = _Parser(
        prog="dgemma-lsp", description="Inline code completion from a diffusion model. Without a command: serve LSP."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--stdio", action="store_true", help="serve on standard input and output (the default)")
    parser.add_argument("--tcp", metavar="HOST:PORT", type=_address, help="serve one editor on a TCP port instead")
    parser.add_argument(
        "--clientProcessId",
        dest="client_pid",
        metavar="PID",
        type=_pid,
        help="process id of the editor: the server ends with it",
    )
    parser.set_defaults(command="serve")
    commands = parser.add_subparsers(metavar="COMMAND")

    complete = commands.add_parser("complete", help="print one completion, the best however unlikely it is")
    typing = "print what would appear while you type: nothing where the best candidate is too unlikely"
    complete.add_argument("--while-typing", action="store_true", help=typing)
    complete.set_defaults(command="complete")

    trace = commands.add_parser("trace", help="write an HTML page that plays the denoising of one completion")
    trace.add_argument("--html", type=_output, required=True, metavar="OUT", help="file to write")
    trace.set_defaults(command="trace")

    demo = commands.add_parser("demo", help="complete eight places in files of four languages")
    demo.set_defaults(command="demo")

    doctor = commands.add_parser("doctor", help="check the installation and print what to do about each problem")
    given = "JSON file of settings as an editor sends them, which override the other options; - reads standard input"
    doctor.add_argument("--settings", metavar="FILE", help=given)
    doctor.set_defaults(command="doctor")

    settings = commands.add_parser("settings", help="list all settings with their defaults and meanings")
    form = settings.add_mutually_exclusive_group()
    form.add_argument("--schema", dest="page", action="store_const", const="schema", help="print a JSON Schema")
    form.add_argument(
        "--markdown", dest="page", action="store_const", const="markdown", help="print the table of docs/settings.md"
    )
    settings.set_defaults(command="settings")

    stats = commands.add_parser(
        "stats", help="print how often suggestions were accepted and kept, and how long they took"
    )
    stats.add_argument("--delete", action="store_true", help="delete all counts")
    stats.set_defaults(command="stats")

    for command in (complete, trace):
        where = "position of the cursor; line and column count from 1, columns in characters"
        command.add_argument("target", metavar="FILE:LINE:COLUMN", help=where)
    for command in (complete, demo, trace):
        limit = "time limit in milliseconds (default: %(default)s)"
        command.add_argument("--deadline-ms", type=_deadline, default=10_000, metavar="N", help=limit)
        command.add_argument("--seed", type=_seed, default=0, metavar="N", help="the same seed gives the same text")
    for command in (complete, demo, doctor, trace):
        model, device = _setting("engine.model"), _setting("engine.device")
        command.add_argument(
            "--model", type=model, default=DEFAULT_MODEL, help="short name, folder or GGUF file (default: %(default)s)"
        )
        command.add_argument(
            "--device", type=device, default="auto", help="device: auto (the default), cpu, cuda or cuda:N"
        )
        url, file = _setting("engine.url"), _file
        command.add_argument("--url", type=url, default="", help="ask an engine elsewhere: see the setting engine.url")
        command.add_argument("--key-file", type=file, default="", metavar="FILE", help="its key: see engine.keyFile")
        command.add_argument("--ca-file", type=file, default="", metavar="FILE", help="see engine.caFile")
        command.add_argument(
            "--plain-http-host",
            type=_entry("engine.plainHttpHosts"),
            action="append",
            default=[],
            metavar="NAME",
            help="see engine.plainHttpHosts; may be repeated",
        )
    for command in (complete, doctor, stats):
        command.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT with a port from 1 to 65535")
    return host.strip("[]"), int(port)


def _file(text: str) -> str:
    """Returns a path in the form that settings take: with `~`, or made absolute from the current folder."""
    known = _setting("engine.keyFile")(text)
    return known if known.startswith("~") or not known else os.path.abspath(known)  # noqa: PTH100, no file is looked at


def _setting(key: str) -> Callable[[str], str]:
    option = next(option for option in OPTIONS if option.key == key)

    def read(text: str) -> str:
        if problem := option.problem(text, section=SECTION):
            # An option is named by argparse, not by its setting.
            raise argparse.ArgumentTypeError(problem.removeprefix(f"{SECTION}.{key} "))
        return text

    return read


def _entry(key: str) -> Callable[[str], str]:
    """Returns a function that checks one entry of a list setting; see `_setting`."""
    option = next(option for option in OPTIONS if option.key == key)

    def read(text: str) -> str:
        if problem := option.problem([text], section=SECTION):
            raise argparse.ArgumentTypeError(problem.removeprefix(f"{SECTION}.{key}: entry 1 "))
        return text

    return read


def _output(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the file name is empty")
    return Path(text)


def _pid(text: str) -> int:
    return _number(text, low=1, high=2**31 - 1)


def _deadline(text: str) -> int:
    return _number(text, low=1, high=600_000)


def _seed(text: str) -> int:
    return _number(text, low=0, high=2**63 - 1)


def _number(text: str, *, low: int, high: int) -> int:
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
    return int(text)
