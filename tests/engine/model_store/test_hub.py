"""`pull OWNER/NAME` with the hub's own client, against a hub on this machine that redirects, breaks and refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dgemma_engine.errors import ModelStoreError
from dgemma_engine.model_store.choice import choose_model
from dgemma_engine.model_store.hub_files import HubFile, needed_files
from dgemma_engine.model_store.hub_name import HubName

from tests.engine.model_store.hub_server import COMMIT, REPO, HubServer, hub_server

WEIGHTS = bytes(range(256)) * 8_000
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "README.md": b"a model",
    "modeling_x.py": b"raise SystemExit('run')",
    "pytorch_model.bin": b"pickle",
    "onnx/model.onnx": b"onnx",
    "original/model.safetensors": b"another",
    "model-00001-of-00002.safetensors": WEIGHTS,
    "model-00002-of-00002.safetensors": WEIGHTS[::-1],
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
    "consolidated.safetensors": b"the same once more",
    "adapter_model.safetensors": b"an adapter",
}
FETCHED = {
    "config.json",
    "tokenizer.json",
    "README.md",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "pulled.json",
}


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server() as server:
        server.files = dict(FILES)
        yield server


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


Run = Callable[..., Ended]
Begin = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def begin(server: HubServer, tmp_path: Path) -> Iterator[Begin]:
    """Starts the program; ends it with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*argv: str) -> subprocess.Popen[bytes]:
        command, environ = program(server, tmp_path, *argv)
        # A shell lets background commands ignore Ctrl-C, and child processes inherit that.
        heard = signal.signal(signal.SIGINT, signal.default_int_handler)
        started.append(subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        signal.signal(signal.SIGINT, heard)
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def program(server: HubServer, home: Path, *argv: str) -> tuple[list[str], dict[str, str]]:
    """Returns the command and its environment; `huggingface_hub` reads its variables when it is imported."""
    folders = os.pathsep.join(str(Path(name).resolve()) for name in (".", "engine", "kernels"))
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / "data"),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": server.url,
        "PYTHONPATH": folders,
    }
    return [sys.executable, "-m", "dgemma_engine", *argv], environ


@pytest.fixture
def run(server: HubServer, tmp_path: Path) -> Run:
    """Runs the program as a user would."""

    def run(*argv: str, **variables: str) -> Ended:
        command, environ = program(server, tmp_path, *argv)
        ended = subprocess.run(
            command, env=environ | variables, capture_output=True, text=True, timeout=120, check=False
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


def folder(tmp_path: Path, name: str = "owner%2Fmodel") -> Path:
    return tmp_path / "data/dgemma-lsp/models/hub" / name


def names(path: Path) -> set[str]:
    return {str(one.relative_to(path)) for one in path.rglob("*") if one.is_file()}


def test_folder_is_fetched_whole_and_without_code(run: Run, server: HubServer, tmp_path: Path) -> None:
    ended = run("pull", REPO)
    place = folder(tmp_path)
    assert (ended.code, ended.out) == (0, f"{REPO}: {place}\n"), ended.err
    assert f"{REPO}: commit {COMMIT[:12]}, 4 MB, apache-2.0\n" in ended.err
    assert names(place) == FETCHED
    assert (place / "model-00002-of-00002.safetensors").read_bytes() == WEIGHTS[::-1]
    assert [one.name for one in place.parent.iterdir()] == [place.name]
    num_requests = len(server.requests)
    assert run("pull", REPO).out == f"{REPO}: is there already: {place}\n"
    # Two more requests: the commit of the revision, and the list of files.
    assert len(server.requests) == num_requests + 2
    listed = next(line for line in run("models").out.splitlines() if line.startswith(REPO)).split()
    assert (listed[0], listed[4], listed[-1]) == (REPO, "apache-2.0", str(place))
    assert choose_model(REPO, {"XDG_DATA_HOME": str(tmp_path / "data")}).runs == str(place)
    assert run("rm", REPO).out == f"{REPO}: removed\n"
    assert not place.exists()
    assert run("rm", REPO).err == f"dgemma-engine: {REPO} is not there; `dgemma-engine models` lists what is\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_download_is_resumed(
    number: signal.Signals, begin: Begin, run: Run, server: HubServer, tmp_path: Path
) -> None:
    # More than the library writes at once.
    large = WEIGHTS * 12
    server.files["model-00001-of-00002.safetensors"] = large
    server.holds_after = len(large) - 1_000
    process = begin("pull", REPO)
    part = folder(tmp_path).parent / ".owner%2Fmodel.part" / COMMIT / "model-00001-of-00002.safetensors.part"
    give_up_s = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 10_000_000) and time.monotonic() < give_up_s:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    assert part.exists(), "nothing was fetched within a minute"
    process.send_signal(number)
    process.wait(30)
    server.holds_after = None
    server.released.set()
    there = part.stat().st_size
    assert 0 < there < len(large)
    ended = run("pull", REPO)
    assert ended.code == 0, ended.err
    assert (folder(tmp_path) / "model-00001-of-00002.safetensors").read_bytes() == large
    assert ("GET", "/moved/model-00001-of-00002.safetensors", f"bytes={there}-") in server.requests
    assert names(folder(tmp_path)) == FETCHED


def test_connection_that_breaks_is_resumed_at_once(run: Run, server: HubServer, tmp_path: Path) -> None:
    large = WEIGHTS * 12
    server.files["model-00001-of-00002.safetensors"] = large
    server.breaks_after = len(large) - 1_000
    ended = run("pull", REPO)
    assert (ended.code, ended.err.count("\n")) == (0, ended.err.count(f"{REPO}:")), ended.err
    assert (folder(tmp_path) / "model-00001-of-00002.safetensors").read_bytes() == large


def test_offline_mode_is_reported(run: Run) -> None:
    ended = run("pull", REPO, HF_HUB_OFFLINE="1")
    said = f"dgemma-engine: {REPO}: HF_HUB_OFFLINE is set, so nothing is fetched; unset it\n"
    assert (ended.code, ended.err) == (1, said)


def test_two_names_have_two_folders() -> None:
    texts = ["o/m@a/b", "o/m@a--b", "o/m:a/b.gguf", "o/m:a--b.gguf", "o/m@a", "o/m:a"]
    found = {name.folder for text in texts if (name := HubName.parse(text)) is not None}
    assert len(found) == len(texts)


def test_name_works_wherever_a_model_is_named(run: Run, tmp_path: Path) -> None:
    run("pull", REPO)
    for argv in (
        ("plan", REPO),
        ("tune", str(tmp_path), "--model", REPO),
        ("adapt", "--base", REPO, "--corpus", "x", "--minutes", "1"),
    ):
        ended = run(*argv)
        assert "not fetched from the hub yet" not in ended.err, argv
        said = [line for line in ended.err.splitlines() if " % " not in line]
        assert len(said) == 1 and said[0].startswith("dgemma-engine: "), ended.err


def test_one_gguf_file_is_fetched_alone(run: Run, server: HubServer, tmp_path: Path) -> None:
    server.files = {"model-Q4_0.gguf": WEIGHTS, "model-Q8_0.gguf": WEIGHTS[::-1], "README.md": b""}
    ended = run("pull", f"{REPO}:model-Q8_0.gguf")
    place = folder(tmp_path, "owner%2Fmodel:model-Q8_0.gguf")
    assert ended.out == f"{REPO}:model-Q8_0.gguf: {place / 'model-Q8_0.gguf'}\n", ended.err
    assert names(place) == {"model-Q8_0.gguf", "pulled.json"}


def test_moved_revision_replaces_the_older_files(run: Run, server: HubServer, tmp_path: Path) -> None:
    run("pull", f"{REPO}@main")
    server.commit, server.files["config.json"] = "b" * 40, b'{"model_type": "other"}'
    ended = run("pull", f"{REPO}@main", "--json")
    place = folder(tmp_path, "owner%2Fmodel@main")
    last = json.loads(ended.out.splitlines()[-1])
    assert last == {"name": f"{REPO}@main", "path": str(place), "commit": "b" * 40}
    assert (place / "config.json").read_bytes() == b'{"model_type": "other"}'


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (401, {"X-Error-Code": "RepoNotFound"}, "there is no such repository, or it is private: check the name, or"),
        (403, {"X-Error-Code": "GatedRepo"}, "is gated: accept its terms at"),
        (403, {}, "the hub refuses it; sign in with an account that may read it: hf auth login"),
        (404, {"X-Error-Code": "RepoNotFound"}, "there is no such repository, or it is private"),
        (429, {"Retry-After": "0"}, "the hub has had too many requests from here; wait some minutes"),
        (500, {}, "the hub answers with HTTP status 500; try again later"),
    ],
)
def test_refusal_is_reported_in_one_sentence(
    run: Run, server: HubServer, tmp_path: Path, status: int, headers: dict[str, str], said: str
) -> None:
    server.status, server.headers = status, headers
    ended = run("pull", REPO)
    assert ended.code == 1
    assert ended.err.startswith(f"dgemma-engine: {REPO}") and said in ended.err and ended.err.count("\n") == 1
    assert not folder(tmp_path).parent.exists()


def test_unreachable_hub_is_reported_in_one_sentence(run: Run, tmp_path: Path) -> None:
    ended = run("pull", REPO, HF_ENDPOINT="http://127.0.0.1:9")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "the hub cannot be reached; check the network, HF_ENDPOINT and HTTPS_PROXY" in ended.err
    assert not folder(tmp_path).parent.exists()


def test_token_from_the_usual_places_is_sent(run: Run, server: HubServer, tmp_path: Path) -> None:
    server.token = "hf_secret"
    assert "sign in: hf auth login" in run("pull", REPO).err
    assert run("pull", REPO, HF_TOKEN="hf_secret").code == 0
    assert "hf_secret" not in "".join(path.read_text() for path in folder(tmp_path).glob("*.json"))


@pytest.mark.parametrize("wrong", ["model-00002-of-00002.safetensors", "config.json"])
def test_content_that_the_hub_does_not_describe_is_not_kept(
    run: Run, server: HubServer, tmp_path: Path, wrong: str
) -> None:
    server.wrong.add(wrong)
    ended = run("pull", REPO)
    assert ended.code == 1
    assert f"{wrong} is not the file that the hub describes" in ended.err
    assert not folder(tmp_path).exists()
    server.wrong.clear()
    assert run("pull", REPO).code == 0


def test_missing_space_is_reported_before_the_download(server: HubServer, tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\n"
        "from dgemma_engine.model_store.hub_fetch import HubModel, fetch_hub_model\n"
        "from dgemma_engine.model_store.hub_name import HubName\n"
        "from dgemma_engine.model_store.user_folder import ModelStore\n"
        f"model = HubModel(HubName(repo={REPO!r}))\n"
        f"store = ModelStore(folder=Path({str(tmp_path)!r}))\n"
        "fetch_hub_model(model, store, lambda _: None, free_bytes=lambda _: 10**6)\n"
    )
    environ = os.environ | {"HF_ENDPOINT": server.url, "PYTHONPATH": "engine:kernels", "HF_HOME": str(tmp_path / "hf")}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert f"{REPO} needs 68 MB more, 1 MB are free; free some" in ended.stderr
    assert not any(path.endswith(".safetensors") for _, path, _ in server.requests)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("owner/model", HubName(repo="owner/model")),
        ("owner/model@v1.0", HubName(repo="owner/model", revision="v1.0")),
        ("owner/model@refs/pr/1:a/b.gguf", HubName(repo="owner/model", revision="refs/pr/1", file="a/b.gguf")),
        ("o/m:x.gguf", HubName(repo="o/m", file="x.gguf")),
        ("small", None),
        ("/abs/model", None),
        ("./owner/model", None),
        ("../owner/model", None),
        ("owner/../model", None),
        ("owner/model/", None),
        ("a/b/c", None),
        ("owner/model@", None),
        ("owner/model:../../x.gguf", None),
        ("owner /model", None),
    ],
)
def test_name_at_the_hub_is_parsed(text: str, name: HubName | None) -> None:
    assert HubName.parse(text) == name
    if name is not None:
        assert str(name) == text and "/" not in name.folder


@pytest.mark.parametrize(
    ("name", "paths", "said"),
    [
        ("o/m:no.gguf", ["a.gguf"], "o/m has no file no.gguf; name one of its GGUF files after a colon: a.gguf"),
        ("o/m:config.json", ["config.json"], "only GGUF files are fetched one by one; leave `:config.json` out"),
        ("o/m:a-00001-of-00002.gguf", ["a-00001-of-00002.gguf"], "GGUF files in several parts are not read"),
        ("o/m", ["Mixture-of-Thoughts.gguf"], "name one of its GGUF files after a colon: Mixture-of-Thoughts.gguf"),
        ("o/m", ["config.json", "x.bin"], "o/m has no *.safetensors; choose another repository"),
        ("o/m", ["a.safetensors"], "o/m has no config.json, so it is no model of a kind that is read"),
        ("o/m", [f"{number}.gguf" for number in range(8)], "5.gguf and 2 more"),
    ],
)
def test_repository_without_a_model_is_reported(name: str, paths: list[str], said: str) -> None:
    wanted = HubName.parse(name)
    assert wanted is not None
    with pytest.raises(ModelStoreError) as caught:
        needed_files(wanted, [HubFile(path=path, num_bytes=1) for path in paths], frozenset)
    assert said in str(caught.value)


def test_name_that_was_not_downloaded_is_reported_with_the_command(run: Run) -> None:
    ended = run("start", "--model", REPO, "--foreground")
    assert ended.code == 2
    assert ended.err.endswith(
        f"{REPO}: no such folder, and not fetched from the hub yet; run: dgemma-engine pull {REPO}\n"
    )
