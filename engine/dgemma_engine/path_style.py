"""The form of paths on this system, and a comparable form of them: slashes, `/c:` for a drive. Pure.

Windows compares names without case, and spells a drive in either case, as `C:`, `c%3A` or `\\\\?\\C:`. A comparable
path has forward slashes and a lower-case drive: `/c:/w/a.py`, and `//server/share/a.py` on another machine.
"""

from __future__ import annotations

import posixpath
import re
import sys
from enum import Enum
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from urllib.parse import quote

_DRIVE_IN_PATH = re.compile(r"/+([A-Za-z])[:|](?=/|$)")
_NATIVE_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_DRIVE = re.compile(r"([A-Za-z]):(?=/|$)")
_DRIVE_IN_URI = re.compile(r"(?i)([a-z][a-z0-9+.-]*):(?:(//)([^/]*))?(/+)([a-z])(?::|%3a)(?=/|$)")
_HOST_IN_URI = re.compile(r"(?i)(file):(//)([^/]+)(?=/)")


class PathStyle(Enum):
    """The file paths of a system."""

    POSIX = "posix"
    WINDOWS = "windows"

    @property
    def pure(self) -> type[PurePath]:
        """The class that compares native paths."""
        return PureWindowsPath if self is PathStyle.WINDOWS else PurePosixPath

    def comparable(self, native: str) -> str:
        """Returns a native absolute path in the form for comparing."""
        if self is PathStyle.POSIX:
            return native
        path = native.replace("\\", "/")
        if path.startswith(("//?/UNC/", "//./UNC/")):
            path = f"//{path[8:]}"
        path = path.removeprefix("//?/").removeprefix("//./")
        if drive := _DRIVE.match(path):
            return f"/{drive[1].lower()}:{path[drive.end() :]}"
        return path

    def native(self, comparable: str) -> str:
        """Returns a path in the form for comparing as the system opens it; empty where it is no file's."""
        if self is PathStyle.POSIX:
            return comparable
        if drive := _DRIVE_IN_PATH.match(comparable):
            return f"{drive[1].lower()}:{comparable[drive.end() :] or '/'}"
        return comparable if comparable.startswith("//") and len(comparable.strip("/")) > 0 else ""

    def folded(self, text: str) -> str:
        """Returns a name as the system compares names."""
        return text.lower() if self is PathStyle.WINDOWS else text

    def normalized(self, comparable: str) -> str:
        """Returns a comparable path without `.`, `..` and doubled slashes."""
        if self is PathStyle.POSIX:
            return posixpath.normpath(comparable)
        slashes = comparable.replace("\\", "/")
        path = posixpath.normpath(slashes)
        drive = _DRIVE_IN_PATH.match(path)
        return f"/{drive[1].lower()}:{path[drive.end() :]}" if drive else path

    def one_spelling(self, uri: str) -> str:
        """Returns a URI in the one spelling that documents are compared by: VS Code's, `file:///c%3A/w/a.py`."""
        if self is PathStyle.POSIX:
            return uri
        if found := _DRIVE_IN_URI.match(uri):
            scheme, slashes, host, _, drive = found.groups()
            host = "" if host is None or host.lower() == "localhost" else host.lower()
            return f"{scheme.lower()}:{slashes or '//'}{host}/{drive.lower()}%3A{uri[found.end() :]}"
        if found := _HOST_IN_URI.match(uri):
            return f"file://{found[3].lower()}{uri[found.end() :]}"
        if _NATIVE_DRIVE.match(uri):
            return f"file:///{uri[0].lower()}%3A{quote(uri[2:].replace(chr(92), '/'), errors='surrogatepass')}"
        return uri


HERE = PathStyle.WINDOWS if sys.platform == "win32" else PathStyle.POSIX
"""The style of this system."""
