from __future__ import annotations

import os
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from dgemma_lsp.privacy.policy import Privacy

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
    ("path", "what"),
    [
        (".env~", ".env"),
        ("#.env#", ".env"),
        (".#.env", ".env"),
        (".env.swp", ".env"),
        ("..env.swp", ".env"),
        (".netrc~", "credentials"),
        (".netrc.swo", "credentials"),
        ("._netrc.swp", "credentials"),
        (".credentials.swp", "credentials"),
        (".credentials.un~", "credentials"),
        (".credentials.kate-swp", "credentials"),
        (".npmrc.bak", "credentials"),
        (".npmrc.bak.bak~", "credentials"),
        (".pypirc.dpkg-old", "credentials"),
        ("credentials.~1~", "credentials"),
        ("secrets.yml.20240131", "credentials"),
        ("secrets.yml.2024-01-31T12:00", "credentials"),
        ("secrets-old.yml", "credentials"),
        ("credentials (1).json", "credentials"),
        ("credentials copy 2.json", "credentials"),
        ("credentials.json.save.1", "credentials"),
        ("Copy of credentials.json", "credentials"),
        ("copy (2) of credentials.json", "credentials"),
        ("Backup of passwords.txt", "credentials"),
        ("credentials.json - Copy", "credentials"),
        ("credentials - Copy (2).json", "credentials"),
        ("credentials.json___jb_tmp___", "credentials"),
        (".~lock.passwords.csv#", "credentials"),
        (".aws.bak/config", "credentials"),
        (".docker~/config.json.orig", "credentials"),
        (".ssh-old/config", ".ssh"),
        *(
            (f"server.key{mark}", "a key")
            for mark in ("~", ".bak", ".orig", ".old", ".save", ".tmp", ".1", ".org", "_bak")
        ),
        (".server.key.swp", "a key"),
        ("server.pem.backup2", "a key"),
        *((f"server.key{mark}", "a key") for mark in (",v", ".part", ".crdownload", ".disabled", "-", "1", ".lock")),
        *(("shadow-", "credentials"), ("gshadow-", "credentials"), ("secrets.yml.enc", "credentials")),
        *((".env1", ".env"), (".git-credentials.lock", "credentials")),
        ("\N{FULLWIDTH FULL STOP}env", ".env"),
        (".en\N{ZERO WIDTH JOINER}v", ".env"),
        (".env. .", ".env"),
        (".NETRC ", "credentials"),
        (".\N{LATIN SMALL LETTER LONG S}sh/config", ".ssh"),
        ("CREDENTIALS.JSON", "credentials"),
        ("w\\.env", ".env"),
    ],
)
def test_backups_and_other_spellings_of_a_secret_are_private(path: str, what: str):
    why = f"this file is private ({what})"
    assert privacy().why_not_read(Path("/w") / path) == why
    assert privacy().why_not_complete(f"file:///w/{quote(path)}", "plaintext", "") == why


@pytest.mark.parametrize(
    "path",
    [
        *("a.py~", "credentials.py.bak", "secrets/a.py", "secrets.bak/a.py", "keys.1", "env.bak", ".bak", "~", "#"),
        *(
            "poetry.lock",
            "page2",
            "key1.py",
            "a.part",
            "shadow-1.py",
            "copy.py",
            "Copy of a.py",
            "shadow-copy.ts",
            "a (1).py",
            "old.ssh.py",
            "key.old",
            "_" * 4_000,
        ),
    ],
)
def test_backups_of_other_files_are_not_private(path: str):
    assert privacy().why_not_read(Path("/w") / path) is None


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


@pytest.mark.parametrize("home", ["/home/u[1]", "/home/*", "/home/a?", "/home/a\\b", "/"])
def test_home_of_an_odd_name_is_no_pattern(home: str):
    path = f"{home.rstrip('/')}/notes/a.md"
    assert privacy("~/notes/", home=Path(home)).why_not_read(Path(path)) is not None
    assert privacy("~/notes/", home=Path(home)).why_not_read(Path("/home/u1/notes/a.md")) is None


def test_setting_names_both_spellings_of_an_accent():
    path = Path("/w/cafe\N{COMBINING ACUTE ACCENT}/a.py")
    assert privacy("caf\N{LATIN SMALL LETTER E WITH ACUTE}/").why_not_read(path) is not None


def test_files_of_a_repository_cannot_allow_secrets(tmp_path: Path):
    (tmp_path / ".dgemmaignore").write_text("!.env\n!*\n")
    assert privacy().why_not_read(tmp_path / ".env") == "this file is private (.env)"


@pytest.mark.parametrize(
    "uri", ["", "file:", "http://[bad", "file:///a%00b.py", "file://host/w/a.py", "x:y:z", "\ud800", "file://[x/a.py"]
)
def test_odd_uris_are_answered(uri: str):
    assert privacy().why_not_complete(uri, "python", "x = 1") is None


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("file://host/w/%2Eenv", ".env"),
        ("file:///w/x/../.ssh/config", ".ssh"),
        ("file:///w/c#/.env", ".env"),
        ("file:///w/what?/.env", ".env"),
        ("file:///w/.env#L3", ".env"),
        ("file:///w/.env?ref=main", ".env"),
        ("file://.env", ".env"),
        ("file://home/.ssh/config", ".ssh"),
        ("file:w/.env", ".env"),
        ("FILE:///w/.env", ".env"),
        ("/w/.env", ".env"),
        ("untitled:c#/.env", ".env"),
        ("git:/w/.env?%7B%7D", ".env"),
        ("vscode-notebook-cell:/w/.env#W0", ".env"),
        ("vscode-notebook-cell:/w/c#/.env", ".env"),
        ("file://[x/.env", ".env"),
        ("file:///w/.env%23", ".env"),
        ("file:///w/.env%00", ".env"),
        ("file:///w/\ud800/.env", ".env"),
    ],
)
def test_odd_uri_of_a_secret_is_private(uri: str, what: str):
    assert privacy().why_not_complete(uri, "", "") == f"this file is private ({what})"


@pytest.mark.parametrize("uri", ["file:///w/" + "a" * 100_000, "untitled:" + "a/" * 65, "file:///" + "a/" * 50_000])
def test_path_over_the_length_limit_is_private(uri: str):
    why = privacy().why_not_complete(uri, "python", "x = 1")
    assert why == "this file is private (its path has more than 4096 characters or 64 folders)"


def test_folder_of_an_odd_name_keeps_its_ignore_file(tmp_path: Path):
    for name in ("c#", "what?", "100%25"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".gitignore").write_text("*.gen.py\n")
        uri = f"file://{tmp_path}/{name.replace('%', '%25')}/a.gen.py"
        assert privacy().why_not_complete(uri, "python", "") == "this file is private (.gitignore: *.gen.py)"


def test_link_to_a_private_file_whose_name_is_not_utf8_is_private(tmp_path: Path):
    (tmp_path / ".env").touch()
    (tmp_path / os.fsdecode(b"\xff.py")).symlink_to(".env")
    assert privacy().why_not_complete(f"file://{tmp_path}/%FF.py", "python", "") == "this file is private (.env)"


def test_dots_after_a_link_lead_where_the_link_leads(tmp_path: Path):
    (tmp_path / ".ssh/keys").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / ".ssh/keys")
    assert privacy().why_not_read(tmp_path / "link/../config") == "this file is private (.ssh)"


def test_allowing_a_link_does_not_allow_what_it_leads_to(tmp_path: Path):
    (tmp_path / "id_rsa").touch()
    (tmp_path / ".env.example").symlink_to("id_rsa")
    (tmp_path / "k.pem").touch()
    (tmp_path / "l.example").symlink_to("k.pem")
    assert privacy("!*.example").why_not_read(tmp_path / ".env.example") == "this file is private (a key)"
    assert privacy("!*.example").why_not_read(tmp_path / "l.example", head=KEY) == "this file is private (a key)"
    assert privacy("!*.example", "!*.pem").why_not_read(tmp_path / "l.example", head=KEY) is None
