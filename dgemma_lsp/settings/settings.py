"""What the user may choose, read tolerantly from whatever JSON the editor sends.

A wrong value never stops the server: it is named in a problem, and the value that held before stays. One table
describes every key; reader, messages, JSON schema and docs/settings.md come from it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, cast

from dgemma_engine.model_store.catalogue import DEFAULT_MODEL, OLD_NAMES

from dgemma_lsp.privacy.gitignore_file import problem_of
from dgemma_lsp.settings.options import Kind, Option, shown

SECTION = "dgemma"

LOG_LEVELS = ("error", "warning", "info", "debug")
_MAX_PROBLEMS = 5
_MAX_KEY_CHARS = 60
_MOST_NAMES = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The choices that hold; `OPTIONS` says what each means.

    Attributes:
        enabled: whether anything is offered at all.
        engine_model: a short name, or the path of a folder or GGUF file.
        engine_device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        engine_autostart: whether an engine is started when none runs.
        engine_http: address where other editors ask the engine over HTTP; empty is none.
        deadline_ms: milliseconds for one answer.
        max_tokens: most tokens of an answer.
        fill_deadline_ms: milliseconds for one fill of a selection.
        fill_max_tokens: most tokens of a fill.
        completion_fallback: whether the answer is offered in the completion menu too.
        speculation: whether what follows a shown completion is prepared while nobody waits for the engine.
        paused_languages: languages that nothing is offered in.
        private_files: patterns of files that are neither completed nor read.
        stats: whether counts and times are kept on this machine.
        seed: the same seed gives the same answer.
        log_level: least severe message on stderr.
    """

    enabled: bool = True
    engine_model: str = DEFAULT_MODEL
    engine_device: str = "auto"
    engine_autostart: bool = True
    engine_http: str = ""
    deadline_ms: int = 3_000
    max_tokens: int = 64
    fill_deadline_ms: int = 20_000
    fill_max_tokens: int = 512
    completion_fallback: bool = False
    speculation: bool = True
    paused_languages: tuple[str, ...] = ()
    private_files: tuple[str, ...] = ()
    stats: bool = True
    seed: int = 0
    log_level: str = "warning"

    def __post_init__(self) -> None:
        for option in OPTIONS:
            if problem := option.problem(getattr(self, option.field), section=SECTION):
                raise ValueError(problem)


OPTIONS = (
    Option(
        key="enabled",
        field="enabled",
        kind=Kind.BOOLEAN,
        meaning="Enable inline completions. Off also starts no engine; on completes in every file that is not private.",
    ),
    Option(
        key="engine.model",
        field="engine_model",
        kind=Kind.STRING,
        form="a short name or the path of a model",
        renamed=OLD_NAMES,
        meaning="Model to run: a short name that `dgemma-engine models` lists (`tiny` comes with the package), or the "
        "path of a Hugging Face folder or a GGUF file.",
    ),
    Option(
        key="engine.device",
        field="engine_device",
        kind=Kind.STRING,
        pattern=r"auto|cpu|cuda(:\d+)?",
        form="auto, cpu, cuda or cuda:N",
        meaning="Device to run on: `cpu`, `cuda`, `cuda:1`; `auto` uses CUDA where it is available.",
    ),
    Option(
        key="engine.autostart",
        field="engine_autostart",
        kind=Kind.BOOLEAN,
        meaning="Start an engine with the first request. Off connects to a running engine only.",
    ),
    Option(
        key="engine.http",
        field="engine_http",
        kind=Kind.STRING,
        pattern=r"|localhost(:\d{1,5})?|\d{1,3}(\.\d{1,3}){3}(:\d{1,5})?|\[[\da-fA-F:]{2,39}\](:\d{1,5})?",
        form="an IP address and a port, such as 127.0.0.1:8012",
        meaning="Address where `dgemma-engine serve` answers other editors over HTTP while this editor runs, such as "
        "`127.0.0.1:8012`. Empty serves none. Needs `engine.autostart`; an address that other machines reach needs a "
        "key in the environment variable `DGEMMA_API_KEY`.",
    ),
    Option(
        key="deadlineMs",
        field="deadline_ms",
        kind=Kind.INTEGER,
        low=50,
        high=60_000,
        meaning="Time limit of one completion, in milliseconds: small shows less and sooner, large waits for long "
        "completions.",
    ),
    Option(
        key="maxTokens",
        field="max_tokens",
        kind=Kind.INTEGER,
        low=1,
        high=4_096,
        meaning="Maximum length of a completion, in tokens: small cuts long completions, large costs time per "
        "denoising step.",
    ),
    Option(
        key="fill.deadlineMs",
        field="fill_deadline_ms",
        kind=Kind.INTEGER,
        low=50,
        high=600_000,
        meaning="Time limit of filling a selection, in milliseconds: small gives up sooner, large waits for whole "
        "functions.",
    ),
    Option(
        key="fill.maxTokens",
        field="fill_max_tokens",
        kind=Kind.INTEGER,
        low=1,
        high=4_096,
        meaning="Maximum length of a filled selection, in tokens: small cuts functions short, large takes longer.",
    ),
    Option(
        key="completionFallback",
        field="completion_fallback",
        kind=Kind.BOOLEAN,
        meaning="Offer the completion in the completion menu too. Off offers ghost text only.",
    ),
    Option(
        key="speculation",
        field="speculation",
        kind=Kind.BOOLEAN,
        meaning="Prepare what follows a shown completion while the engine is idle. Off saves power.",
    ),
    Option(
        key="pausedLanguages",
        field="paused_languages",
        kind=Kind.STRINGS,
        pattern=r"[^\s,;*/]{1,100}",
        form="language ids",
        entry="a language id without blanks, such as markdown",
        meaning="Languages without completions, as language ids of the editor, such as `markdown`. Empty completes in "
        "every language.",
    ),
    Option(
        key="privateFiles",
        field="private_files",
        kind=Kind.STRINGS,
        pattern=r"(?:[^\S\n\r]|[!/])*[^\s!/][^\n\r]*",
        # Twice the longest file name; a thousand of them are read within one message's time.
        max_chars=512,
        # Privacy never fails open.
        when_unusable=("*",),
        form="patterns as in .gitignore",
        entry="a pattern as in .gitignore, such as *.pem",
        refusal=problem_of,
        meaning="Files that are neither completed nor read, as patterns of `.gitignore`. Empty leaves the decision to "
        "file names and ignore files, `*` makes every file private, `!pattern` allows files that would be private.",
    ),
    Option(
        key="stats",
        field="stats",
        kind=Kind.BOOLEAN,
        meaning="Keep counts and times, never text, for `dgemma-lsp stats`. Off writes nothing to disk.",
    ),
    Option(
        key="seed",
        field="seed",
        kind=Kind.INTEGER,
        low=0,
        high=2**63 - 1,
        meaning="Seed of the random draws: the same seed gives the same text on the same machine.",
    ),
    Option(
        key="logLevel",
        field="log_level",
        kind=Kind.STRING,
        choices=LOG_LEVELS,
        meaning="Least severe log messages to write: `error` writes almost none, `debug` one line per completion. None "
        "contains source text.",
    ),
)


def read_settings(raw: object, base: Settings, held: Settings | None = None) -> tuple[Settings, tuple[str, ...]]:
    """Reads what the editor sent.

    Args:
        raw: decoded JSON: nested objects or dotted keys, with or without the outer `dgemma`; None is nothing.
        base: supplies every value that `raw` leaves out.
        held: supplies every value that `raw` sets in a way that cannot be used; None is `base`.

    Returns:
        The settings, and a line for each of the first keys that could not be used as they are, with one for the number
        of others. Of a list the entries that can be used count.
    """
    if raw is None:
        return base, ()
    if not isinstance(raw, Mapping):
        return base, (f"the settings must be an object, not {shown(raw)}; the defaults hold",)
    by_key = {option.key: option for option in OPTIONS}
    values: dict[str, Any] = {}
    problems: list[str] = []
    found, num_more = _flattened(cast("Mapping[str, object]", raw), by_key)
    for key, value in found:
        option = by_key.get(key)
        if option is not None and (notice := option.rename_notice(value, section=SECTION)):
            values[option.field] = option.renamed[str(value)]
            problems.append(notice)
            continue
        usable = option.usable(value) if option else None
        fate = "ignored"
        if option is not None:
            kept = getattr(held or base, option.field)
            is_default = kept == getattr(Settings(), option.field)
            fate = f"the default holds: {shown(kept)}" if is_default else "the value before holds"
            if is_default and option.when_unusable is not None:
                kept = option.when_unusable
                fate = f"until it is mended this holds: {', '.join(option.when_unusable)}"
            values[option.field] = kept if usable is None else usable
        problem = option.problem(value, section=SECTION) if option else ""
        if problem is None:
            continue
        if len(problems) == _MAX_PROBLEMS:
            # Looking for the nearest key takes time, and nobody reads a thousand lines.
            num_more += 1
        else:
            problem = problem or _unknown(key, by_key)
            problems.append(problem if usable is not None else f"{problem}; {fate}")
    if num_more:
        problems.append(f"{num_more} more settings cannot be used; dgemma-lsp settings lists what can")
    return replace(base, **values), tuple(problems)


def _flattened(raw: Mapping[str, object], known: Mapping[str, Option]) -> tuple[list[tuple[str, object]], int]:
    """Returns dotted keys without the section, no deeper than a known key can be, and how many were left out.

    Of an object with more than 1,000 names the first 1,000 are read and those that are known.
    """
    inner = raw.get(SECTION)
    layers = [raw, cast("Mapping[str, object]", inner)] if isinstance(inner, Mapping) else [raw]
    groups = {key.rpartition(".")[0] for key in known} - {""}
    found: list[tuple[str, object]] = []
    num_left_out = 0
    for layer in layers:
        names = _names(layer, [SECTION, *groups, *known])
        num_left_out += len(layer) - len(names)
        for name in names:
            key, value = name.removeprefix(f"{SECTION}."), layer[name]
            if value is None or (layer is raw and key == SECTION and isinstance(value, Mapping)):
                continue
            if key in groups and isinstance(value, Mapping):
                group = cast("Mapping[str, object]", value)
                parts = _names(group, [one.removeprefix(f"{key}.") for one in known])
                num_left_out += len(group) - len(parts)
                found += ((f"{key}.{part}", group[part]) for part in parts if group[part] is not None)
            else:
                found.append((key, value))
    return found, num_left_out


def _names(layer: Mapping[str, object], known: Iterable[str]) -> Collection[str]:
    if len(layer) <= _MOST_NAMES:
        return layer
    wanted = (name for key in known for name in (key, f"{SECTION}.{key}") if name in layer)
    return dict.fromkeys([*islice(layer, _MOST_NAMES), *wanted])


def _unknown(key: str, known: Mapping[str, Option]) -> str:
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(key[:_MAX_KEY_CHARS].lower(), by_lower, n=1, cutoff=0.0)
    hint = f"; did you mean {SECTION}.{by_lower[near[0]]}?" if near else ""
    return f"{SECTION}.{key[:_MAX_KEY_CHARS]} is no setting{hint}"
