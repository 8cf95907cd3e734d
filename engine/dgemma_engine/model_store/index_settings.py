"""Which package indexes the user has set, for a download without pip: environment, uv's names, pip's files.

Turns an environment and files into `IndexSettings`. Standard library only; connects to nothing.
"""

from __future__ import annotations

import configparser
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dgemma_engine.model_store.url_secrets import plain_url

_DEFAULT_INDEX = "https://pypi.org/simple"
_DEFAULT_TIMEOUT_S = 15.0
_SCHEMES = ("http://", "https://")
# What is no URL, and too plain to hold a password.
_HARMLESS = re.compile(r"[\w./-]{1,80}")
_TRUE = ("1", "true", "yes", "on", "t", "y")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """Where packages come from.

    Attributes:
        urls: of the indexes' simple API, in the order in which they are asked, without a slash at the end.
        certificates: a file of certificates to trust instead of the system's; None takes the system's.
        proxy: address of a proxy for all requests; empty takes what the environment says.
        timeout_s: seconds without an answer after which a request is given up.
        no_index: no index may be asked.
        others: indexes whose addresses are not those of HTTP, which only pip asks, if they are addresses at all.
    """

    urls: tuple[str, ...]
    certificates: Path | None
    proxy: str
    timeout_s: float
    no_index: bool = False
    others: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The indexes for a message, without passwords."""
        shown = [url if _HARMLESS.fullmatch(url) else plain_url(url) for url in (*self.urls, *self.others)]
        return f"the package index{'es' if len(shown) > 1 else ''} {', '.join(shown)}"

    @classmethod
    def read(cls, environ: Mapping[str, str], *, files: tuple[Path, ...] | None = None) -> Self:
        """Reads the settings; pip's environment variables win over uv's, and both over pip's files.

        Args:
            environ: the process's environment.
            files: pip's configuration files, the last one wins; None takes those that pip reads.
        """
        kept: dict[str, str] = {}
        for file in _pip_files(environ) if files is None else files:
            kept |= _global_options(file)

        def option(name: str, *others: str) -> str:
            names = ("PIP_" + name.upper().replace("-", "_"), *others)
            return next((environ[key] for key in names if environ.get(key)), kept.get(name, ""))

        first = option("index-url", "UV_DEFAULT_INDEX", "UV_INDEX_URL") or _DEFAULT_INDEX
        urls = [first, *option("extra-index-url", "UV_INDEX", "UV_EXTRA_INDEX_URL").split()]
        # uv lets an index have a name: NAME=URL.
        bare = [url.partition("=")[2] if "=" in url.partition("://")[0] else url for url in urls]
        certificates = option("cert", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
        try:
            timeout_s = float(option("timeout") or option("default-timeout"))
        except ValueError:
            timeout_s = _DEFAULT_TIMEOUT_S
        bare = list(dict.fromkeys(url.rstrip("/") for url in bare))
        return cls(
            urls=tuple(url for url in bare if url.lower().startswith(_SCHEMES)),
            others=tuple(url for url in bare if not url.lower().startswith(_SCHEMES)),
            no_index=option("no-index", "UV_NO_INDEX").lower() in _TRUE,
            certificates=Path(certificates) if certificates else None,
            proxy=option("proxy"),
            timeout_s=timeout_s,
        )


def _pip_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Returns pip's configuration files: of the system, the user, the environment, and the one that is named."""
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == "/dev/null":
        return ()
    home = Path(environ.get("HOME", "/"))
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    system = [Path(folder) for folder in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if folder]
    files = [*(folder / "pip/pip.conf" for folder in system), Path("/etc/pip.conf")]
    if sys.platform == "darwin":
        files = [Path("/Library/Application Support/pip/pip.conf"), *files]
        files.append(home / "Library/Application Support/pip/pip.conf")
    files += [home / ".pip/pip.conf", config / "pip/pip.conf", Path(sys.prefix) / "pip.conf"]
    return (*files, Path(named)) if named else tuple(files)


def _global_options(file: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(file, encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return {}
    # The section of `pip download` wins over the global one.
    sections = [section for section in ("global", "download") if parser.has_section(section)]
    return {key.replace("_", "-"): value for section in sections for key, value in parser.items(section)}
