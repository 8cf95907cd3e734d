"""Sizes of what `make package` builds, in MB, for the README."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `record` lies

import record

_KINDS = {"wheel": "*.whl", "source": "dgemma_lsp-*.tar.gz", "neovim": "dgemma-nvim-*.tar.gz", "vscode": "*.vsix"}


def sizes(folder: Path) -> dict[str, float]:
    """Returns the size of each artefact of a folder in MB (10^6 bytes).

    Raises:
        FileNotFoundError: one of them is not there.
    """
    found: dict[str, float] = {}
    for name, pattern in _KINDS.items():
        files = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
        if not files:
            raise FileNotFoundError(f"no {pattern} in {folder}; run `make package` first")
        found[f"{name}_mb"] = round(files[-1].stat().st_size / 1e6, 2)
    return found


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    record.add_destination(parser)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("dist"))
    args = parser.parse_args()
    record.write("packages", sizes(args.folder), args.out)


if __name__ == "__main__":
    main()
