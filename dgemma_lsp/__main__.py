"""`python -m dgemma_lsp` is `dgemma-lsp`."""

import sys

from dgemma_lsp.cli import main

if __name__ == "__main__":
    sys.exit(main())
