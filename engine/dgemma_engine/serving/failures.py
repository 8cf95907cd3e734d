"""Errors on the device thread -> messages for the client: one line that quotes no text of the user.

After some errors of a device every later call fails too, until the process ends: an illegal address, a card that was
lost on the bus, a driver that lost its state in a suspend.
"""

from __future__ import annotations

import logging
import sys
import traceback

from dgemma_engine.errors import EngineError, EngineFault

_log = logging.getLogger(__name__)

# Memory that ran out is such an error where the driver refuses it, and not torch's allocator.
_RECOVERABLE = "out of memory"


def is_device_lost(error: BaseException) -> bool:
    """Returns whether an error, or one that led to it, is a device's that only a new process can use again."""
    # The process listens before torch is imported, and only torch raises errors of devices.
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.AcceleratorError) and _RECOVERABLE not in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def device_message(error: Exception) -> str:
    """Returns the message for clients of a lost device, from its error without the hints for developers."""
    said = str(error).strip().partition("\n")[0]
    return f"the device failed ({said}); the engine ends, and the next request starts a new one"


def fault(error: Exception) -> EngineFault:
    """Returns the answer to a request that failed; logs an error of another package."""
    if isinstance(error, EngineError):
        return EngineFault(_one_line(error))
    # The message of an arbitrary exception may quote the user's text; its traceback cannot.
    place = "".join(traceback.format_tb(error.__traceback__))
    _log.error("a request failed with %s\n%s", type(error).__name__, place)
    return EngineFault(f"the engine failed on this request ({type(error).__name__}); its log has the place")


def load_message(error: Exception) -> str:
    """Logs and returns why a model cannot be loaded, and what to do if known; the log has a fault's place."""
    if isinstance(error, EngineError):
        message, place = _one_line(error), ""
    elif isinstance(error, ModuleNotFoundError):
        message, place = f"{error.name} is not installed; run: pip install 'dgemma-lsp[engine]'", ""
    else:
        why = ": ".join(filter(None, (type(error).__name__, _one_line(error))))
        message = f"the model cannot be loaded ({why}); the engine's log has the place"
        place = "\n" + "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s%s", message, place)
    return message


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
