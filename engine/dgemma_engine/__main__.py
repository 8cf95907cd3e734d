"""`python -m dgemma_engine`: the same program as `dgemma-engine`."""

import sys

from dgemma_engine.cli import main

sys.exit(main())
