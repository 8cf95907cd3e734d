"""Secrets by name, language or first lines: environments, keys, credentials. Pure.

Every folder of a path is checked as well as the file. Names that a file system may treat as equal are equal: upper and
lower case, compatible characters, invisible ones, dots and spaces at the end. A backup of a secret is one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

from dgemma_engine.privacy.backup_names import originals_of
from dgemma_engine.privacy.gitignore_file import IgnoreFile

_HEAD_CHARS = 4_096
_DATA = ("json", "yml", "yaml", "toml", "ini", "xml", "txt", "csv", "properties", "conf", "cfg", "enc")

_NAMES = (
    (".env", (".env", ".env.*", ".env-*", ".env_*", "*.env", ".envrc", ".envrc.*", ".flaskenv", ".Renviron")),
    (".ssh", (".ssh/",)),
    (
        "a key",
        (
            *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.pem", "*.key", "*.p8", "*.p12", "*.pfx", "*.pkcs12"),
            *("*.jks", "*.keystore", "*.ppk", "*.gpg", "*.pgp", "*.kdbx", "*.kdb", "*.keytab", "*.ovpn", "*.age"),
            *("*.keychain", "*.keychain-db", ".gnupg/", ".password-store/"),
        ),
    ),
    (
        "credentials",
        (
            *(".netrc", "_netrc", ".npmrc", ".yarnrc.yml", ".pypirc", ".pgpass", ".my.cnf", ".git-credentials"),
            *(".htpasswd", ".vault-token", ".vault_pass*", ".dockercfg", ".terraformrc", "terraform.rc", ".s3cfg"),
            *(".boto", ".authinfo", "kubeconfig", "credentials", "secrets", "shadow", "gshadow"),
            *(".aws/", ".azure/", ".kube/", ".gcloud/", ".config/gcloud/", ".docker/config.json", ".git/config"),
            *("*.tfvars", "*.tfvars.json", "*.tfstate", "*.tfstate.*", "client_secret*.json"),
            *("service-account*.json", "service_account*.json", "serviceaccount*.json", "*-credentials.json"),
            *(f"{stem}.{ending}" for stem in ("credentials", "secrets", "secret", "passwords") for ending in _DATA),
        ),
    ),
)
# Any text that `_KEY_TEXT` finds holds one of them; most texts hold none, and are not searched.
_KEY_WORDS = ("private key", "putty-user-key-file-", "age-secret-key-1", "aws_secret_access_key")
_MOST_PATHS = 256
_LANGUAGES = {"dotenv": ".env", "env": ".env", "pem": "a key", "ssh_config": ".ssh", "sshconfig": ".ssh"}
_KEY_TEXT = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|^PuTTY-User-Key-File-\d|\bAGE-SECRET-KEY-1[A-Z0-9]"
    r"|^\s*aws_secret_access_key\s*=",
    re.MULTILINE | re.IGNORECASE,
)


_CONTROLS = dict.fromkeys([*range(32), 127])
_INVISIBLE = {"Cc", "Cf"}


class SecretNames:
    """The table of names, read once."""

    def __init__(self) -> None:
        # A pattern with a slash in its middle is about a name in a folder of a name, wherever that is.
        self._names = _table(lambda name: "/" not in name.rstrip("/"))
        self._paths = _table(lambda name: "/" in name.rstrip("/"))
        # Asked at every key of the same few documents.
        self.kind_of_path = lru_cache(_MOST_PATHS)(self._kind_of_path)

    def _kind_of_path(self, path: str) -> str | None:
        """Returns the kind of secret that a path's names indicate, or None.

        Args:
            path: with slashes; relative or absolute.
        """
        names = [(name, *originals_of(name)) for name in _plain(path).split("/") if name]
        for depth, forms in enumerate(names):
            is_file = depth == len(names) - 1
            folders = names[depth - 1] if depth else ()
            below = [f"{folder}/{form}" for folder in folders for form in forms]
            for table, entries in ((self._names, forms), (self._paths, below)):
                if kind := _kind(table, entries, is_file=is_file):
                    return kind
        return None


def _table(is_in: Callable[[str], bool]) -> tuple[tuple[str, IgnoreFile], ...]:
    return tuple(
        (kind, IgnoreFile.parse("\n".join(f"**/{name}".lower() for name in filter(is_in, names))))
        for kind, names in _NAMES
    )


def _kind(table: tuple[tuple[str, IgnoreFile], ...], entries: Sequence[str], *, is_file: bool) -> str | None:
    for entry in entries:
        for kind, file in table:
            rule = file.deciding(entry if is_file else f"{entry}/")
            # A folder called `secrets` holds source code more often than not; the same name for a file says enough.
            if rule is not None and (rule.folders_only or is_file):
                return kind
    return None


def _plain(path: str) -> str:
    """Returns a path as the file system that distinguishes least would compare it."""
    folded = unicodedata.normalize("NFKC", path).casefold().replace("\\", "/")
    visible = "".join(one for one in folded if one.isascii() or unicodedata.category(one) not in _INVISIBLE)
    # After a colon Windows names a stream of the same file.
    names = (
        name if name.startswith(":") else name.partition(":")[0] for name in visible.translate(_CONTROLS).split("/")
    )
    return "/".join(name.rstrip(". ") for name in names)


def kind_of_text(text: str, language: str = "") -> str | None:
    """Returns the kind of secret that the first 4,096 characters of a text or its LSP language id indicate, or None.

    Args:
        text: the text.
        language: LSP language id; may be empty.
    """
    head = text[:_HEAD_CHARS]
    may_hold = any(map(head.lower().__contains__, _KEY_WORDS))
    return "a key" if may_hold and _KEY_TEXT.search(head) else _LANGUAGES.get(language.lower())
