from __future__ import annotations

import time
from pathlib import Path

import pytest

from dgemma_lsp.privacy import Privacy

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n"


def privacy(*patterns: str, home: Path = Path("/home/u")) -> Privacy:
    return Privacy(patterns, home=home, clock=time.monotonic)


@pytest.mark.parametrize(
    ("path", "what"),
    [
        (".env", ".env"),
        (".env.local", ".env"),
        ("deep/.ENV", ".env"),
        ("prod.env", ".env"),
        (".envrc", ".env"),
        (".ssh/config", ".ssh"),
        (".ssh/deep/known_hosts", ".ssh"),
        ("id_ed25519", "a key"),
        ("id_rsa.pub", "a key"),
        ("tls/server.pem", "a key"),
        ("x.p12", "a key"),
        (".gnupg/pubring.kbx", "a key"),
        (".aws/credentials", "credentials"),
        (".netrc", "credentials"),
        (".npmrc", "credentials"),
        (".pypirc", "credentials"),
        (".git-credentials", "credentials"),
        (".docker/config.json", "credentials"),
        ("infra/prod.tfvars", "credentials"),
        ("terraform.tfstate.backup", "credentials"),
        ("credentials.json", "credentials"),
        ("config/secrets.yml", "credentials"),
        ("client_secret_123.json", "credentials"),
    ],
)
def test_private_by_name(path: str, what: str):
    why = f"this file is private ({what})"
    assert privacy().why_not_read(Path("/w") / path) == why
    assert privacy().why_not_complete(f"file:///w/{path}", "plaintext", "") == why
    assert privacy().why_not_complete(f"untitled:{path}", "plaintext", "") == why


@pytest.mark.parametrize(
    "path",
    ["a.py", "env.py", "environment.ts", "credentials.py", "secrets/a.py", "ssh/a.py", "keyboard.key.ts", "e.envelope"],
)
def test_not_private_by_name(path: str):
    assert privacy().why_not_read(Path("/w") / path) is None
    assert privacy().why_not_complete(f"file:///w/{path}", "python", "x = 1\n") is None


@pytest.mark.parametrize(
    "head",
    [
        KEY,
        'KEY = """-----BEGIN RSA PRIVATE KEY-----\n',
        '{"private_key": "-----BEGIN PRIVATE KEY-----\\nMII"}',
        "-----BEGIN PGP PRIVATE KEY BLOCK-----",
        "PuTTY-User-Key-File-3: ssh-ed25519",
        "[default]\naws_secret_access_key = abc",
    ],
)
def test_private_by_first_lines(head: str):
    why = "this file is private (a key)"
    assert privacy().why_not_complete("file:///w/a.txt", "plaintext", head) == why
    assert privacy().why_not_complete("untitled:Untitled-1", "", head) == why
    assert privacy().why_not_read(Path("/w/a.txt"), head=head) == why


def test_words_about_keys_are_not_keys():
    text = "# BEGIN PRIVATE KEY is what PEM files say\n-----BEGIN PUBLIC KEY-----\n-----BEGIN CERTIFICATE-----\n"
    assert privacy().why_not_complete("file:///w/a.py", "python", text) is None


def test_private_by_language():
    assert privacy().why_not_complete("untitled:Untitled-1", "dotenv", "") == "this file is private (.env)"


def test_link_to_a_private_file_is_private(tmp_path: Path):
    (tmp_path / ".env").touch()
    (tmp_path / "notes.txt").symlink_to(".env")
    assert privacy().why_not_read(tmp_path / "notes.txt") == "this file is private (.env)"


def test_ignore_files_count(tmp_path: Path):
    (tmp_path / ".gitignore").write_text("build/\n")
    (tmp_path / ".dgemmaignore").write_text("*.gen.py\n")
    uri = tmp_path.as_uri()
    assert privacy().why_not_complete(f"{uri}/build/a.py", "python", "") == "this file is private (.gitignore: build/)"
    assert privacy().why_not_read(tmp_path / "a.gen.py") == "this file is private (.dgemmaignore: *.gen.py)"
    cell = f"{uri}/build/a.ipynb#W0sZmlsZQ".replace("file:", "vscode-notebook-cell:")
    assert privacy().why_not_complete(cell, "python", "") == "this file is private (.gitignore: build/)"


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.sql", "/w/deep/a.sql"),
        ("customers/data", "/w/deep/customers/data/a.py"),
        ("/w/only/", "/w/only/a.py"),
        ("~/notes/", "/home/u/notes/a.md"),
        ("*", "/w/a.py"),
    ],
)
def test_settings_make_files_private(pattern: str, path: str):
    why = privacy(pattern).why_not_read(Path(path))
    assert why is not None
    assert why.startswith("this file is private (dgemma.privateFiles: ")
    assert pattern.strip("~/") in why
    assert privacy(pattern).why_not_read(Path("/x/other.rs")) is None or pattern == "*"


def test_settings_allow_what_would_be_private(tmp_path: Path):
    (tmp_path / ".gitignore").write_text("build/\n")
    allowing = privacy("!.env.example", "!*.pem", "!build/")
    assert allowing.why_not_read(tmp_path / ".env.example") is None
    assert allowing.why_not_read(tmp_path / ".env") is not None
    assert allowing.why_not_complete("file:///w/x.pem", "pem", KEY) is None
    assert allowing.why_not_read(tmp_path / "build/a.py") is None


def test_files_of_a_repository_cannot_allow_secrets(tmp_path: Path):
    (tmp_path / ".dgemmaignore").write_text("!.env\n!*\n")
    assert privacy().why_not_read(tmp_path / ".env") == "this file is private (.env)"


@pytest.mark.parametrize(
    "uri", ["", "file:", "http://[bad", "file:///a%00b.py", "file://host/w/a.py", "x:y:z", "\ud800"]
)
def test_odd_uris_are_answered(uri: str):
    assert privacy().why_not_complete(uri, "python", "x = 1") is None


def test_odd_uri_of_a_secret_is_private():
    assert privacy().why_not_complete("file://host/w/%2Eenv", "", "") == "this file is private (.env)"
    assert privacy().why_not_complete("file:///w/x/../.ssh/config", "", "") == "this file is private (.ssh)"
