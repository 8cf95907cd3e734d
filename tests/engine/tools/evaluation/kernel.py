"""Detects Landlock without the code under test, whose failure must not skip its own tests."""

from __future__ import annotations

import ctypes
import platform
import sys

import pytest

_LANDLOCK_CREATE_RULESET, _ASK_VERSION = 444, 1


def _has_landlock() -> bool:
    if sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}:
        return False
    libc = ctypes.CDLL(None)
    return libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION) >= 1


needs_confinement = pytest.mark.skipif(
    not _has_landlock(), reason="no Landlock here: running untrusted programs was not checked"
)
