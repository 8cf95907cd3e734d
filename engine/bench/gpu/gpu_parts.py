"""The cases of each part of the GPU report; the parts in order of worth."""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import gpu_gains
import gpu_kernels
import torch
from dgemma_engine.model.ops import Ops
from gpu_cases import Bench, Sizes, distinct_experts, row
from gpu_cases import seconds as seconds_of
from gpu_checks import Checks
from gpu_model import ReferenceModel
from gpu_plan import ALL_FORMATS, PLAIN, REPOSITORY
from gpu_result import FIXED, RATIOS, Report
from gpu_setting import GpuSetting, format_of, run_cases
from gpu_together import users_at_once

TINY_WORK = "gated_gelu"
FOLDERS = ("tests/kernels/interpreted", "tests/engine/interpreted")


def run_part(part: str, setting: GpuSetting, report: Report, folder: Path, seconds_left: float) -> None:
    """Runs the cases of one part that are not done.

    Args:
        part: its name.
        setting: what is measured.
        report: takes the results.
        folder: where the tuner keeps the card's launch table.
        seconds_left: until the part is ended.
    """
    report.begin(part)
    match part:
        case "layers":
            _checks(setting, report, "operations", ALL_FORMATS)
        case "tokens":
            _checks(setting, report, "tokens", (PLAIN, *setting.formats))
        case "tests":
            report.guard("kernels and models on awkward shapes", "", lambda: _tests(setting, report))
        case "kernels":
            _kernels(setting, report)
        case "gains":
            gpu_gains.run(setting, report)
        case "requests":
            for form in reversed(setting.formats):
                run_cases(setting, form, report, {"inline completion": Bench.inline, **_prefills(setting.sizes)})
                run_cases(
                    setting, form, report, {f"users: {n}": partial(users_at_once, n) for n in setting.sizes.users}
                )
        case "transformers":
            if has_peer():
                report.guard("in turn", PLAIN, lambda: _compare(setting, report))
            else:
                report.leave_out("in turn", PLAIN, "this Python has no transformers with DiffusionGemma")
        case "long":
            long = {f"steps behind {size}": partial(_long, size) for size in setting.sizes.long_prompts}
            for form in reversed(setting.formats):
                run_cases(setting, form, report, {**long, "adaptive steps": Bench.adaptive})
        case "tune":
            report.guard("launch table", "", lambda: _tune(setting, report, folder, seconds_left), always=True)
        case _:
            counted = {"distinct experts": partial(_experts, report), "profile": partial(_profile, report)}
            run_cases(setting, part, report, {FIXED: Bench.fixed, **counted})


def has_peer() -> bool:
    """Returns whether `transformers` is installed and has the model."""
    try:
        return importlib.util.find_spec("transformers.models.diffusion_gemma") is not None
    except ModuleNotFoundError:
        return False


def _checks(setting: GpuSetting, report: Report, kind: str, forms: Sequence[str]) -> None:
    ops = setting.ops if setting.is_tiny else Ops.triton()
    checks = Checks(device=setting.device, config=setting.checked, sizes=setting.sizes, ops=ops)

    def check(form: str) -> list[dict[str, Any]]:
        report.keep(f"checked_{kind}", {form: getattr(checks, kind)(format_of(form))})
        return []

    for form in forms if not setting.is_tiny else setting.formats:
        report.guard(f"{kind} as in plain PyTorch", form, lambda form=form: check(form))


def _prefills(sizes: Sizes) -> dict[str, Callable[[Bench], list[dict[str, Any]]]]:
    return {f"prefill {size}": partial(_prefill, size) for size in (sizes.prefill, 4 * sizes.prefill)}


def _prefill(num_tokens: int, bench: Bench) -> list[dict[str, Any]]:
    return bench.prefill(num_tokens)


def _long(num_tokens: int, bench: Bench) -> list[dict[str, Any]]:
    return bench.long_context(num_tokens)


def _experts(report: Report, bench: Bench) -> list[dict[str, Any]]:
    """Keeps how many experts a canvas touches in each layer."""
    touched = distinct_experts(bench.model, bench.prompt(bench.sizes.prompt), bench.sizes.canvas)
    report.keep("distinct_experts", {bench.form: touched})
    return []


def _kernels(setting: GpuSetting, report: Report) -> None:
    """Times every operation of a step against the card's own rates."""
    rates: dict[str, float | None] = {}

    def measure_rates() -> list[dict[str, Any]]:
        small = {"read_bytes": 2**16, "size": 64} if setting.is_tiny else {}
        rates.update(gpu_kernels.rates(setting.device, **small))
        report.keep("rates", dict(rates))
        return []

    def measure(work: Any) -> list[dict[str, Any]]:
        found = gpu_kernels.measured(work, setting.device, rates)
        report.keep("kernels", {work.name: found})
        size = setting.sizes.prompt
        return [row(f"component {work.name}", "", Sizes(), ms_per_step=found["ms_per_step"], prompt_tokens=size)]

    works = [work for work in gpu_kernels.works() if not setting.is_tiny or work.name == TINY_WORK]
    if report.left([work.name for work in works]) and report.guard("rates", "", measure_rates, always=True):
        for work in works:
            report.guard(work.name, "", lambda work=work: measure(work))


def _profile(report: Report, bench: Bench) -> list[dict[str, Any]]:
    """Keeps the kernels that take most of a canvas's fixed steps, replayed."""
    bench.fixed()
    cache = bench.prompt(bench.sizes.prompt)
    found = gpu_gains.profile(lambda: bench.canvas_seconds(cache, bench.sizes.prompt, [1], 0), bench.device)
    report.keep("profile", {bench.form: found})
    return []


def _tests(setting: GpuSetting, report: Report) -> list[dict[str, Any]]:
    """Runs the tests of kernels, each file in a process, several at once: compiling takes them longer than running."""
    files = sorted(str(path) for folder in FOLDERS for path in (REPOSITORY / folder).glob("test_*.py"))
    mode = {"TRITON_INTERPRET": "1"} if setting.is_tiny else {"DGEMMA_TEST_GPU": "1"}
    # The interpreter takes minutes, and the default tests run them with it.
    only = ["--collect-only"] if setting.is_tiny else []

    def run(file: str) -> tuple[str, int, str]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *only, file]
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment | mode, capture_output=True, text=True, check=False
        )
        return Path(file).name, done.returncode, done.stdout + done.stderr

    with ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1) // 2)) as pool:
        ended = list(pool.map(run, files))
    report.keep("tests", {name: said.strip().rpartition("\n")[2] for name, _status, said in ended})
    wrong = [f"{name}: {said[-700:]}" for name, status, said in ended if status]
    if wrong:
        raise ValueError("\n".join(wrong))
    return []


def _compare(setting: GpuSetting, report: Report) -> list[dict[str, Any]]:
    """Fills one canvas with the fixed steps in turn by `transformers` and by each format that fits beside it."""
    sizes, spent = setting.sizes, dict[str, list[float]]()
    peer = ReferenceModel(setting.config, setting.device, torch.bfloat16)
    benches, prompts, missing = dict[str, Bench](), dict[str, Any](), dict[str, str]()
    for form in reversed(setting.formats):
        try:
            benches[form] = setting.bench(form)
            prompts[form] = benches[form].prompt(sizes.prompt)
        except torch.OutOfMemoryError as error:
            benches.pop(form, None)
            missing[form] = str(error)
    report.keep("not_beside_transformers", missing)
    generator = torch.Generator().manual_seed(6)
    prompt_1T = torch.randint(0, setting.config.vocab_size, (1, sizes.prompt), generator=generator)
    block = [1] * sizes.canvas
    for seed in range(3):
        for form, bench in benches.items():
            once_s = bench.canvas_seconds(prompts[form], sizes.prompt, block, seed)
            spent.setdefault(form, []).append(once_s)
        kept = peer.encoded(prompt_1T)
        run = partial(peer.generate, prompt_1T, kept, sizes.canvas, sizes.fixed_steps)
        spent.setdefault("", []).append(seconds_of(setting.device, run))
    whole_s = statistics.median(spent.pop("")[1:])
    ratios = {form: round(whole_s / statistics.median(values[1:]), 2) for form, values in spent.items()}
    report.keep(RATIOS, ratios)
    entry = row(
        "transformers, fixed steps", PLAIN, sizes, ms_per_step=round(whole_s * 1e3 / sizes.fixed_steps, 3),
        tokens_per_s=round(sizes.canvas / whole_s, 1), steps=sizes.fixed_steps, prompt_tokens=sizes.prompt,
        ratio_to_transformers=1.0,
    )  # fmt: skip
    return [entry]


def _tune(setting: GpuSetting, report: Report, folder: Path, seconds_left: float) -> list[dict[str, Any]]:
    """Continues the card's launch table for as long as there is time."""
    from tune import is_broken, tuner

    only, seconds = ([TINY_WORK], 0.1) if setting.is_tiny else ([], max(0.0, seconds_left - 10))
    file_tuner = tuner(folder, setting.device, lambda: is_broken(setting.device))
    tried = file_tuner.run(only, seconds)
    report.keep("tuned", {"candidates": tried, "is_whole": file_tuner.file.is_whole})
    return []
