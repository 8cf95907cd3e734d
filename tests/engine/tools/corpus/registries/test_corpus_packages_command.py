from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from dgemma_engine.cli import main
from dgemma_engine.errors import TrainingError
from dgemma_engine.tools.corpus.held_out import is_held_out
from dgemma_engine.tools.corpus.registries.corpus_packages_command import summary
from dgemma_engine.tools.corpus.registries.downloads import Downloads, pip_download, source_entries
from dgemma_engine.tools.corpus.registries.languages import ENDINGS
from dgemma_engine.tools.corpus.registries.package_corpus import PackageCorpus
from dgemma_engine.tools.corpus.registries.package_table import TABLE, LanguagePackages, Registry, read_table
from dgemma_engine.tools.corpus.source_lines import SourceCorpus, write_corpus

from tests.engine.tools.corpus.registries.archive_files import FolderFetcher, source, write_npm, write_wheel

HELD_OUT = "package-25"


@pytest.fixture
def fetcher(tmp_path: Path) -> FolderFetcher:
    """Two Python packages, the second one held out and with a copy of a file of the first; one npm package."""
    folders = {name: tmp_path / name for name in ("one", HELD_OUT, "three", "closed")}
    for folder in folders.values():
        folder.mkdir()
    write_wheel(folders["one"], {"one/a.py": source("a"), "one/b.py": source("b")})
    write_wheel(folders[HELD_OUT], {"two/a.py": source("a"), "two/c.py": source("c")})
    write_npm(folders["three"], {"lib/d.js": source("d")})
    write_npm(folders["closed"], {"lib/e.js": source("e")}, license="UNLICENSED")
    return FolderFetcher(folders)


def collected(fetcher: FolderFetcher, *, language_mib: float = 1.0) -> PackageCorpus:
    table = [
        LanguagePackages(lang="python", registry=Registry.PYPI, packages=(HELD_OUT, "one")),
        LanguagePackages(lang="javascript", registry=Registry.NPM, packages=("missing", "three", "closed")),
    ]
    return PackageCorpus(table, fetcher, language_mib=language_mib, package_mib=1.0, report=lambda _line: None)


def test_corpus_holds_out_whole_packages_and_no_copy_of_theirs(fetcher: FolderFetcher, tmp_path: Path) -> None:
    corpus, path = collected(fetcher), tmp_path / "corpus.jsonl.gz"
    write_corpus(path, corpus.sources())
    loaded = SourceCorpus.load(path)
    assert {line.name for line in loaded.train["python"]} == {"a.py", "b.py"}
    assert {line.name for line in loaded.held_out["python"]} == {"c.py"}
    assert [line.text for line in loaded.train["javascript"]] == [source("d")]
    assert fetcher.asked[:2] == [(Registry.PYPI, "one"), (Registry.PYPI, HELD_OUT)]
    lines = list(summary(corpus))
    assert lines[1].split() == ["python", "2", "3", "0.0", HELD_OUT]
    assert lines[-3:] == [
        "files by licence: 4 MIT",
        "files left out: 1 exact duplicate, 1 no clearly permissive licence",
        "packages left out: 2",
    ]
    assert corpus.languages[1].refused == [
        "missing: could not be fetched (no such package)",
        "closed: has no javascript file under a clearly permissive licence",
    ]


def test_language_contributes_at_most_its_share(fetcher: FolderFetcher) -> None:
    corpus = collected(fetcher, language_mib=(1.5 * len(source("a"))) / 2**20)
    kept = [line for line in corpus.sources() if line.lang == "python"]
    assert [line.package for line in kept] == ["one"]


def test_share_of_a_language_counts_bytes(tmp_path: Path) -> None:
    texts = {name: f"{source(name)}# {'é' * 800}\n" for name in "ab"}
    write_wheel(tmp_path, {f"one/{name}.py": text for name, text in texts.items()})
    corpus = collected(FolderFetcher({"one": tmp_path}), language_mib=1.5 * len(texts["a"].encode()) / 2**20)
    [kept] = corpus.sources()
    assert corpus.languages[0].num_bytes == len(kept.text.encode())


def test_bundled_table_has_both_parts_in_every_language() -> None:
    table = read_table(TABLE)
    assert {language.lang for language in table} == set(ENDINGS)
    for language in table:
        assert len(set(language.packages)) == len(language.packages)
        held_out = [name for name in language.packages if is_held_out(name)]
        assert 1 <= len(held_out) < len(language.packages) / 4, language.lang


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[python", "cannot be read"),
        ("python = 1\n", "the table python is not one of packages"),
        ("[python]\nregistry = 'pypi'\n", "the table python is not one of packages ('packages')"),
        ("[python]\nregistry = 'cpan'\npackages = ['a']\n", "'cpan' is not a valid Registry"),
        ("[cobol]\nregistry = 'pypi'\npackages = ['a']\n", "the table cobol is not one of packages"),
        ("[python]\nregistry = 'pypi'\npackages = ['--index-url=x']\n", "--index-url=x"),
        ("[python]\nregistry = 'pypi'\npackages = ['/etc/passwd']\n", "/etc/passwd"),
    ],
)
def test_table_that_cannot_be_used_is_reported_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.toml"
    path.write_text(text)
    with pytest.raises(TrainingError) as caught:
        read_table(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--languages", "cobol"], "cobol: is no language of packages.toml; known are python"),
        (["--table", "nowhere.toml"], "nowhere.toml: no such file; name a table of packages"),
    ],
)
def test_command_refuses_bad_input_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["corpus-packages", str(tmp_path / "out.jsonl.gz"), *options]) == (2 if "--table" in options else 1)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installs fake npm and apt-get that record their arguments and write a file; returns the folder of the records."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("npm", "apt-get"):
        path = folder / name
        path.write_text(
            f'#!/bin/sh\necho "$@" >> {folder}/{name}.calls\n[ "$NO_PACKAGE" ] && echo gone >&2 && exit 7\ntouch got\n'
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return folder


def test_npm_packs_without_scripts(clients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads, folder = Downloads(tmp_path), tmp_path / "empty"
    folder.mkdir()
    downloads.require(Registry.NPM)
    assert [path.name for path in downloads.fetch(Registry.NPM, "@a/b", folder)] == ["got"]
    assert (clients / "npm.calls").read_text() == "pack --silent --ignore-scripts @a/b\n"
    monkeypatch.setenv("NO_PACKAGE", "1")
    with pytest.raises(TrainingError, match=r"^a: could not be fetched \(gone\)$"):
        downloads.fetch(Registry.NPM, "a", folder)


def test_apt_fetches_sources_with_separate_package_lists(clients: Path, tmp_path: Path) -> None:
    apt_folder, kept = tmp_path / "apt", tmp_path / "kept"
    (apt_folder / "sources.list.d").mkdir(parents=True)
    kept.mkdir()
    (apt_folder / "sources.list").write_text("deb http://host stable main\n")
    (apt_folder / "sources.list.d" / "a.sources").write_text("Types: deb\nURIs: http://host\n")
    (apt_folder / "sources.list.d" / "notes.txt").write_text("not read")
    downloads = Downloads(kept, apt_folder)
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        downloads.fetch(Registry.DEBIAN, name, folder)
    calls = (clients / "apt-get.calls").read_text().splitlines()
    assert [call.rpartition("Lists=")[2].partition(" ")[2] for call in calls] == [
        "update --quiet=2", "source --quiet=2 --download-only one", "source --quiet=2 --download-only two",
    ]  # fmt: skip
    assert f"Dir::Etc::sourceparts={kept}/parts" in calls[0] and "Dir::Etc::sourcelist=/dev/null" in calls[0]
    assert {path.name: path.read_text() for path in (kept / "parts").iterdir()} == {
        "sources.list": "deb-src http://host stable main\n",
        "a.sources": "Types: deb-src\nURIs: http://host\n",
    }


def test_apt_fetches_binary_packages_with_the_package_lists_of_the_system(clients: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    assert Downloads(tmp_path).fetch(Registry.DEBIAN_BINARY, "some-dev", folder) == [folder / "got"]
    assert (clients / "apt-get.calls").read_text() == "download --quiet=2 some-dev\n"


def test_pip_takes_wheels_only(tmp_path: Path) -> None:
    command = pip_download(tmp_path)
    assert {"download", "--no-deps", "--only-binary=:all:"} <= set(command) and "install" not in command


def test_source_entries_name_source_packages() -> None:
    assert source_entries("deb [a=b] x y\ndeb-src x y\n# deb\n") == "deb-src [a=b] x y\n# deb\n"
    assert source_entries("Types: deb deb-src\nURIs: x\n") == "Types: deb-src\nURIs: x\n"


def test_client_that_is_missing_is_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TrainingError, match="npm is not installed, which fetches packages of npm; install it, or name"):
        Downloads(tmp_path).require(Registry.NPM)
