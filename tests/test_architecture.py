"""The invariants of docs/ARCHITECTURE.md, each as a test."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "dgemma_lsp": ROOT / "dgemma_lsp",
    "dgemma_engine": ROOT / "engine/dgemma_engine",
    "dgemma_kernels": ROOT / "kernels/dgemma_kernels",
}
MODULES = sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))
TORCH_FREE = ("torch", "triton", "transformers", "tokenizers", "safetensors", "numpy")
PURE = {
    "dgemma_lsp": (
        "commands/checks/engine_checks",
        "commands/checks/facts",
        "commands/checks/finding",
        "commands/checks/machine_checks",
        "completion/cache",
        "completion/debounce",
        "completion/fingerprint",
        "context/builder",
        "context/chunks",
        "context/import_parser",
        "context/recent_documents",
        "context/recent_edits",
        "documents/bounded_store",
        "documents/diff",
        "documents/positions",
        "engine_client/connection_status",
        "engine_client/retry_policy",
        "engine_client/slow_detector",
        "engine_client/status",
        "fill/candidates",
        "fill/instruction",
        "fill/placeholder",
        "fill/target",
        "metrics/acceptance",
        "metrics/stats",
        "metrics/report",
        "postprocess/brackets",
        "postprocess/cursor_context",
        "postprocess/extent",
        "postprocess/indent_style",
        "postprocess/indentation",
        "postprocess/languages",
        "postprocess/lexer",
        "postprocess/deduplicate",
        "postprocess/pipeline",
        "privacy/backup_names",
        "privacy/gitignore_file",
        "privacy/gitignore_pattern",
        "privacy/secrets",
        "request",
        "settings/language_ids",
        "settings/options",
        "settings/schema",
        "settings/settings",
    ),
    "dgemma_engine": (
        "diffusion/canvas",
        "diffusion/denoiser",
        "diffusion/sampler",
        "infill/candidate",
        "infill/hypotheses",
        "infill/length_search",
        "infill/likelihood",
        "infill/preview",
        "infill/result",
        "model/attention_masks",
        "postprocess/block_end",
        "postprocess/clean_candidate",
        "postprocess/truncation",
        "prompt_lookup/candidates",
        "prompting/builder",
        "prompting/suffix_cache",
        "protocol/messages",
        "protocol/trace_messages",
        "tokenization/token_healing",
        "tracing/recorder",
    ),
}
INPUT_OUTPUT = {
    "os",
    "io",
    "pathlib",
    "socket",
    "subprocess",
    "shutil",
    "tempfile",
    "logging",
    "asyncio",
    "urllib",
    "http",
}


def imports(path: Path) -> Iterator[str]:
    """Yields the dotted names a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def module_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_only_the_server_package_speaks_lsp() -> None:
    for path in PACKAGES["dgemma_lsp"].rglob("*.py"):
        if tops(path) & {"pygls", "lsprotocol"}:
            assert path.parent == PACKAGES["dgemma_lsp"] / "server", path


def test_handlers_are_known_to_the_server_only() -> None:
    for path in PACKAGES["dgemma_lsp"].rglob("*.py"):
        if path.name not in {"app.py", "protocol.py"}:
            assert not [name for name in imports(path) if name.endswith("_handlers")], path


def test_server_imports_of_the_engine_only_what_crosses_the_socket() -> None:
    crossing = {"dgemma_engine.protocol.messages", "dgemma_engine.protocol.trace_messages", "dgemma_engine.ipc.client"}
    # Standard library only: both programs treat a terminal and the modes of their files alike, and the doctor looks
    # where the engine does.
    also = {
        "cli.py": {"dgemma_engine.ipc.private_files", "dgemma_engine.terminal"},
        "metrics/store.py": {"dgemma_engine.ipc.private_files"},
        "commands/checks/probes.py": {"dgemma_engine.ipc.lock_file", "dgemma_engine.checkpoint.builtin"},
    }
    for path in PACKAGES["dgemma_lsp"].rglob("*.py"):
        allowed = crossing | also.get(path.relative_to(PACKAGES["dgemma_lsp"]).as_posix(), set())
        for name in imports(path):
            if name.startswith("dgemma_engine."):
                assert any(name == module or name.startswith(module + ".") for module in allowed), (path, name)
            assert name != "dgemma_engine"


@pytest.mark.parametrize(
    "module", ["dgemma_lsp.server.app", "dgemma_lsp.cli", "dgemma_engine.ipc.client", "dgemma_engine.cli"]
)
def test_import_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {TORCH_FREE!r} if m in sys.modules])"
    path = ":".join(str(ROOT / folder) for folder in (".", "engine", "kernels"))
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": path}
    )
    assert result.stdout.strip() == "[]"


def test_kernels_know_tensors_only() -> None:
    for path in PACKAGES["dgemma_kernels"].rglob("*.py"):
        ours = {name for name in tops(path) if name.startswith("dgemma_")}
        assert ours <= {"dgemma_kernels"}, path
        assert tops(path) - sys.stdlib_module_names - ours <= {"torch", "triton"}, path


def test_jit_functions_live_in_private_kernel_files() -> None:
    for path in MODULES:
        if "triton.jit" in path.read_text(encoding="utf-8"):
            assert path.name.startswith("_"), path
            assert PACKAGES["dgemma_kernels"] in path.parents, path


def test_model_code_does_not_know_the_transport() -> None:
    transport = ("ipc", "serving", "cli", "commands")
    forbidden = tuple(f"dgemma_engine.{name}" for name in transport)
    for room in ("model", "diffusion", "infill", "prompting", "tokenization", "quantization", "backends"):
        for path in (PACKAGES["dgemma_engine"] / room).rglob("*.py"):
            assert "pygls" not in tops(path), path
            assert not [name for name in imports(path) if name.startswith(forbidden)], path


@pytest.mark.parametrize(("package", "module"), [(package, name) for package in PURE for name in PURE[package]])
def test_pure_module_does_no_input_or_output(package: str, module: str) -> None:
    path = PACKAGES[package] / f"{module}.py"
    assert not tops(path) & INPUT_OUTPUT
    calls = {node.func.id for node in ast.walk(ast.parse(path.read_text())) if _is_plain_call(node)}
    assert not calls & {"open", "print", "input"}


def _is_plain_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def test_one_thread_touches_the_device() -> None:
    """Only the scheduler starts a thread that may run the model; the launcher's merely waits for a child process."""
    serving = [path for path in PACKAGES["dgemma_engine"].rglob("*.py") if "training" not in path.parts]
    starting = {path.name for path in serving if {"threading", "concurrent"} & tops(path) and _starts_thread(path)}
    assert starting == {"scheduler.py", "launcher.py"}
    assert not {"torch", "engine"} & tops(PACKAGES["dgemma_engine"] / "ipc/launcher.py")


def _starts_thread(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return "Thread(" in text or "ThreadPoolExecutor(" in text


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_module_has_a_contract(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, "every module opens with what it turns into what"


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_no_mutable_module_state(path: Path) -> None:
    """A module-level name in lower case, or `global`, is state; constants are upper case."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Global)]
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Name) and target.id != "__all__":
                is_type_variable = isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
                constant = target.id.lstrip("_").isupper() or target.id == "__version__"
                logger = target.id in {"logger", "_logger"}
                assert constant or logger or is_type_variable or target.id.lstrip("_")[0].isupper(), (
                    f"{target.id} in {path}"
                )


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_file_is_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert path.stem not in {"utils", "helpers", "common", "misc", "base"}


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=module_id)
def test_folder_holds_at_most_16_modules(folder: Path) -> None:
    if PACKAGES["dgemma_kernels"] not in (folder, *folder.parents):
        assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 16


@pytest.mark.parametrize("package", ["dgemma_lsp", "dgemma_engine"])
def test_packages_import_each_other_in_no_cycle(package: str) -> None:
    """Imports for types count; a module at the top of a package counts as a package of its own."""
    modules = {dotted(path): path for path in PACKAGES[package].rglob("*.py") if path.name != "__init__.py"}
    arrows: dict[str, set[str]] = {room_of(module): set() for module in modules}
    for module, path in modules.items():
        arrows[room_of(module)] |= {room_of(name) for name in imports(path) if name in modules} - {room_of(module)}
    while leaves := {room for room, others in arrows.items() if not others & arrows.keys()}:
        arrows = {room: others for room, others in arrows.items() if room not in leaves}
    assert not arrows, "these import each other, or what does"


def dotted(path: Path) -> str:
    package = next(name for name, folder in PACKAGES.items() if folder in path.parents)
    return ".".join([package, *path.relative_to(PACKAGES[package]).with_suffix("").parts])


def room_of(module: str) -> str:
    package, _, name = module.rpartition(".")
    return package if "." in package else f"{package}.{name}"


def test_top_level_is_what_the_page_says() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.partition("/")[0] for line in tracked.splitlines()}
    allowed = {
        "dgemma_lsp", "engine", "kernels", "editors", "tests", "docs", "pyproject.toml", "README.md", "CHANGELOG.md",
        "LICENSE", "Makefile", ".ci", ".gitignore", ".gitattributes",
    }  # fmt: skip
    assert top <= allowed
