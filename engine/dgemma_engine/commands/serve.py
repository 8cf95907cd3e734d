"""`dgemma-engine serve`: answers editors over HTTP with the engine that runs, or with one that it starts."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dgemma_engine.checkpoint.builtin import require_model
from dgemma_engine.cluster.examples import EXAMPLES, example
from dgemma_engine.engine_client.connection_status import ConnectionState, ConnectionStatus
from dgemma_engine.errors import EngineUnavailable, WrongUsage
from dgemma_engine.http_api.access.api_keys import ApiKeys
from dgemma_engine.http_api.access.invitation import Invitation, new_key, shared_key
from dgemma_engine.http_api.http_settings import DEFAULT_PORT, BindAddress, HttpSettings, TlsFiles
from dgemma_engine.ipc.client import EngineClient
from dgemma_engine.ipc.endpoint import EngineLocation
from dgemma_engine.ipc.endpoint_options import add_engine_options, chosen_location
from dgemma_engine.model_store.choice import choose_model
from dgemma_engine.protocol.status_messages import Progress
from dgemma_engine.terminal import say_error

if TYPE_CHECKING:
    from dgemma_engine.http_api.http_server import HttpServer

_MODULES = ("starlette", "uvicorn", "msgspec")
_INPUT_CHARS = 65_536


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    add_engine_options(parser)
    parser.add_argument(
        "--http",
        metavar="HOST:PORT",
        help=f"where to listen (default: 127.0.0.1:{DEFAULT_PORT}; port 0 chooses a free one)",
    )
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="lines of KEY or NAME KEY; needed on every address that other machines reach; DGEMMA_API_KEY is one more",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM: answers HTTPS")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="private key of the certificate, PEM")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name that clients know this machine by"
    )
    parser.add_argument(
        "--allow-origin", action="append", default=[], metavar="ORIGIN", help="web pages that may send requests"
    )
    parser.add_argument(
        "--insistent",
        action="store_true",
        help="answer the best text however unlikely it is (default: an unlikely one is answered empty)",
    )
    parser.add_argument(
        "--idle-minutes",
        type=float,
        metavar="N",
        help="leave the engine after N minutes without a completion, so that it can end (default: never)",
    )
    parser.add_argument(
        "--end-with-input",
        action="store_true",
        help="end when standard input is closed: with the program that starts it",
    )
    parser.add_argument(
        "--ray",
        type=Path,
        metavar="CONFIG",
        help="serve several engines with Ray Serve; its configuration then sets all other options",
    )
    parser.add_argument(
        "--ray-example",
        choices=EXAMPLES,
        metavar="NAME",
        help=f"print a commented configuration for --ray: {', '.join(EXAMPLES)}",
    )
    service = parser.add_mutually_exclusive_group()
    service.add_argument(
        "--share", action="store_true", help="print address, a key and the lines for editors on another machine"
    )
    service.add_argument(
        "--install-service", action="store_true", help="start with these options now and at every login"
    )
    service.add_argument("--uninstall-service", action="store_true", help="undo --install-service")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the subcommand; returns its exit code.

    Raises:
        WrongUsage: an option cannot be used, the model is not there, or the server cannot listen on the address.
        EngineUnavailable: an extra is not installed, the system refuses the service, or no replica starts.
    """
    if arguments.ray_example is not None:
        _say(example(arguments.ray_example).rstrip("\n"))
        return 0
    if arguments.ray is not None:
        _require_no_others(arguments)
        return _serve_with_ray(arguments.ray)
    missing = [name for name in _MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineUnavailable(f"{missing[0]} is not installed; run: pip install 'dgemma-lsp[http]'")
    from dgemma_engine.http_api.user_service import UserService

    if arguments.uninstall_service:
        service = UserService.of_this_user()
        _say("service removed" if service.uninstall() else "no service is installed")
        return 0
    if arguments.share and arguments.end_with_input:
        raise WrongUsage("--share and --end-with-input exclude each other: nobody would see the key")
    key = _shared_key(arguments)
    settings = _settings(arguments, key)
    choice = choose_model(arguments.model, os.environ)
    require_model(choice.runs)
    if choice.is_stand_in:
        say_error("dgemma-engine", choice.notice)
    if arguments.install_service:
        if os.environ.get("DGEMMA_API_KEY") and arguments.api_key_file is None:
            raise WrongUsage("--install-service keeps no key of the environment; put it into an --api-key-file")
        if settings.tls is not None:
            # The service would fail unseen at every start.
            settings.tls.check()
        service = UserService.of_this_user()
        service.install(service_command(arguments))
        _say(f"service installed: {service.path}")
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_serve(arguments, settings, key))
    return 0


def _serve_with_ray(configuration: Path) -> int:
    if importlib.util.find_spec("ray") is None:
        raise EngineUnavailable("ray is not installed; run: pip install 'dgemma-lsp[ray]'")
    from dgemma_engine.cluster.closing import closed
    from dgemma_engine.cluster.signals import Signals

    signals = Signals()
    os.environ |= closed(os.environ)
    from dgemma_engine.cluster.ray_serve import serve_configuration

    location = EngineLocation.locate(os.environ)
    location.prepare()
    say = partial(_say, out=sys.stdout)
    serve_configuration(configuration, say=say, temporary=location.directory / "ray", signals=signals)
    return 0


def _require_no_others(arguments: argparse.Namespace) -> None:
    """Raises `WrongUsage` where an option was given that only the configuration of `--ray` can have."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for name, default in vars(parser.parse_args([])).items():
        if name not in ("ray", "run") and getattr(arguments, name) != default:
            raise WrongUsage(
                f"--{name.replace('_', '-')} has no effect with --ray; set it in the configuration, or in a proxy"
            )


def service_command(arguments: argparse.Namespace) -> list[str]:
    """Returns the command line that serves with the same options; paths in it are absolute."""
    command = [sys.executable, "-P", "-m", "dgemma_engine", "serve", "--http", _address(arguments)]
    command += ["--device", arguments.device]
    if arguments.model is not None:
        model = Path(arguments.model)
        command += ["--model", str(model.absolute()) if model.exists() else arguments.model]
    for name in ("api_key_file", "tls_cert", "tls_key"):
        if (path := getattr(arguments, name)) is not None:
            command += [f"--{name.replace('_', '-')}", str(path.absolute())]
    for name in ("allow_host", "allow_origin"):
        for value in getattr(arguments, name):
            command += [f"--{name.replace('_', '-')}", value]
    if arguments.insistent:
        command.append("--insistent")
    if arguments.idle_minutes is not None:
        command += ["--idle-minutes", f"{arguments.idle_minutes:g}"]
    return command


def _address(arguments: argparse.Namespace) -> str:
    return arguments.http or f"127.0.0.1:{DEFAULT_PORT}"


def _shared_key(arguments: argparse.Namespace) -> str:
    """Returns the key of `--share`: that of the file of keys, if there is one, else a new one; nothing without it."""
    if not arguments.share:
        return ""
    return new_key() if arguments.api_key_file is None else shared_key(arguments.api_key_file)


def _settings(arguments: argparse.Namespace, key: str) -> HttpSettings:
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        raise WrongUsage("--tls-cert and --tls-key belong together; give both")
    if arguments.idle_minutes is not None and not 0 < arguments.idle_minutes < float("inf"):
        raise WrongUsage(f"--idle-minutes {arguments.idle_minutes:g} must be more than 0")
    tls = None if arguments.tls_cert is None else TlsFiles(cert=arguments.tls_cert, key=arguments.tls_key)
    keys = ApiKeys.read(arguments.api_key_file, os.environ)
    hosts = [name.lower() for name in arguments.allow_host]
    return HttpSettings(
        bind=BindAddress.parse(_address(arguments)),
        keys=keys.with_key("share", key) if key and arguments.api_key_file is None else keys,
        tls=tls,
        hosts=(*hosts, socket.gethostname().lower()) if key else tuple(hosts),
        origins=tuple(arguments.allow_origin),
        insistent=arguments.insistent,
    )


def _invitation(arguments: argparse.Namespace, settings: HttpSettings, key: str, port: int) -> str:
    bind, name = settings.bind, socket.gethostname()
    is_any = bind.host in ("0.0.0.0", "::")
    return Invitation(
        scheme="http" if settings.tls is None else "https",
        host=(arguments.allow_host or [name])[0] if is_any else bind.host,
        port=port,
        key=key,
        is_tunnelled=bind.is_loopback,
        tunnel_host=name,
        key_place="" if arguments.api_key_file is None else str(arguments.api_key_file),
    ).lines()


async def _serve(arguments: argparse.Namespace, settings: HttpSettings, key: str) -> None:
    from dgemma_engine.http_api.app import create_app
    from dgemma_engine.http_api.engine_lanes import EngineLanes
    from dgemma_engine.http_api.http_server import HttpServer
    from dgemma_engine.http_api.resting_engine import RestingEngine

    location = chosen_location(arguments)

    async def connect(*, on_progress: Callable[[Progress], None], on_closed: Callable[[], None]) -> EngineClient:
        return await EngineClient.attach_or_start(location, on_progress=on_progress, on_closed=on_closed)

    lanes = EngineLanes(
        connect,
        num_lanes=settings.num_at_once,
        on_status=_say_status,
        on_fault=_say_status,
        clock=time.monotonic,
    )
    rest_s = float("inf") if arguments.idle_minutes is None else arguments.idle_minutes * 60
    engine = RestingEngine(lanes, connect, rest_s=rest_s, clock=time.monotonic)
    server = HttpServer(create_app(engine, settings), settings)
    lanes.wake()

    def listening(url: str) -> None:
        _say(f"listening on {url}")
        if key:
            _say(_invitation(arguments, settings, key, server.port))

    tasks = [asyncio.create_task(engine.watch())]
    if arguments.end_with_input:
        tasks.append(asyncio.create_task(_end_with_input(server)))
    try:
        await server.serve_until_signal(listening)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await lanes.close()


async def _end_with_input(server: HttpServer) -> None:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while await reader.read(_INPUT_CHARS):
        pass
    server.stop()


def _say_status(status: ConnectionStatus) -> None:
    if status.state in (ConnectionState.FAILED, ConnectionState.ABSENT):
        say_error("dgemma-engine", status.message)


def _say(line: str, out: TextIO | None = None) -> None:
    stream = sys.stdout if out is None else out
    stream.write(line + "\n")
    stream.flush()
