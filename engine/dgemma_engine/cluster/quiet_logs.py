"""How Serve logs: JSON, nothing below WARNING, no line per request."""

from __future__ import annotations

from typing import Any

QUIET: dict[str, Any] = {"encoding": "JSON", "log_level": "WARNING", "enable_access_log": False}
"""Fields of Serve's `logging_config`, of the controller and the proxies as of each deployment."""
