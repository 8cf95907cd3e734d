"""What the user may choose: one table, from which reader, messages, JSON schema and docs/settings.md come."""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_engine.model_store.catalogue import DEFAULT_MODEL, OLD_NAMES
from dgemma_engine.privacy.gitignore_file import problem_of

from dgemma_lsp.settings.options import Kind, Option, WorkspaceMay

SECTION = "dgemma"

LOG_LEVELS = ("error", "warning", "info", "debug")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings in force; `OPTIONS` has the meaning of each.

    Attributes:
        enabled: whether anything is offered.
        engine_model: a short name, or the path of a folder or GGUF file.
        engine_device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        engine_autostart: whether an engine is started when none runs.
        engine_idle_unload_minutes: minutes without a request after which a model on a card is unloaded; 0 is never.
        engine_http: address where other editors ask the engine over HTTP; empty is none.
        engine_url: base URL of an engine on another machine, asked over HTTP; empty is one of this machine.
        engine_key_file: file with the key for that engine; empty sends none.
        engine_ca_file: PEM file of certificate authorities to trust for that engine, besides the system's.
        engine_plain_http_hosts: hosts to which text may be sent unencrypted.
        deadline_ms: milliseconds for one answer.
        max_tokens: most tokens of an answer.
        fill_deadline_ms: milliseconds for one fill of a selection.
        fill_max_tokens: most tokens of a fill.
        completion_fallback: whether the answer is offered in the completion menu too.
        speculation: whether the text after a shown completion is prepared while the engine is idle.
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
    engine_idle_unload_minutes: int = 30
    engine_http: str = ""
    engine_url: str = ""
    engine_key_file: str = ""
    engine_ca_file: str = ""
    engine_plain_http_hosts: tuple[str, ...] = ()
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

    @property
    def engine_choice(self) -> tuple[object, ...]:
        """The settings that select the engine; when one changes, a new connection is needed."""
        elsewhere = self.engine_url, self.engine_key_file, self.engine_ca_file, self.engine_plain_http_hosts
        return self.engine_model, self.engine_device, self.engine_autostart, *elsewhere

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
        key="engine.idleUnloadMinutes",
        field="engine_idle_unload_minutes",
        kind=Kind.INTEGER,
        low=0,
        high=10_080,
        meaning="Minutes without a request after which a model on a graphics card is unloaded and its memory given "
        "back; the next request loads it again. 0 keeps it loaded. Holds for engines that are started from then on.",
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
        key="engine.url",
        field="engine_url",
        kind=Kind.STRING,
        pattern=r"[^\s\x00-\x1f]*",
        form="a URL such as https://gpu.example:8012",
        workspace_may=WorkspaceMay.NOTHING,
        meaning="Ask an engine on another machine, such as `https://gpu.example:8012`, where `dgemma-engine serve "
        "--share` prints it. Empty runs an engine on this machine. User and machine settings only: text of your files "
        "is sent there.",
    ),
    Option(
        key="engine.keyFile",
        field="engine_key_file",
        kind=Kind.STRING,
        pattern=r"[^\x00-\x1f]*",
        form="the path of a file",
        workspace_may=WorkspaceMay.NOTHING,
        meaning="File whose first line is the key for `engine.url`: an absolute path, or one with `~`. Empty sends "
        "none. User and machine settings only.",
    ),
    Option(
        key="engine.caFile",
        field="engine_ca_file",
        kind=Kind.STRING,
        pattern=r"[^\x00-\x1f]*",
        form="the path of a PEM file",
        workspace_may=WorkspaceMay.NOTHING,
        meaning="PEM file of certificate authorities to trust for `engine.url`, besides those of the system: an "
        "absolute path, or one with `~`. Empty adds none. User and machine settings only.",
    ),
    Option(
        key="engine.plainHttpHosts",
        field="engine_plain_http_hosts",
        kind=Kind.STRINGS,
        pattern=r"[^\s/]{1,253}",
        max_chars=253,
        form="host names",
        entry="a host name, such as gpu.lan",
        workspace_may=WorkspaceMay.NOTHING,
        meaning="Hosts to which `engine.url` may send text unencrypted, with `http:`. Empty allows this machine only. "
        "User and machine settings only.",
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
        workspace_may=WorkspaceMay.ADD,
        meaning="Files that are neither completed nor read, as patterns of `.gitignore`. Empty leaves the decision to "
        "file names and ignore files, `*` makes every file private, `!pattern` in user settings allows files that "
        "would be private. A workspace adds patterns and takes none away.",
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
