"""Which documents are private: those of a URI one of whose readings is a private file (`dgemma_engine.privacy`)."""

from __future__ import annotations

from dgemma_engine.privacy.file_privacy import FilePrivacy

from dgemma_lsp.documents.uri import Uri

# Schemes whose path is one of this machine's.
_LOCAL = {"", "file", "vscode-notebook-cell"}


class Privacy(FilePrivacy):
    """Decides whether a file or document is private, and why. Reads ignore files only, never the file itself."""

    def why_not_complete(self, uri: str, language: str, head: str) -> str | None:
        """Returns why a document must not be completed, or None where it may be.

        Args:
            uri: the document's.
            language: LSP language id; may be empty.
            head: the first lines of its text.
        """
        parsed = Uri.parse(uri)
        is_local = parsed.scheme in _LOCAL
        paths = [
            form
            for reading in parsed.readings
            for form in (self.forms(reading) if is_local and reading.startswith("/") else (reading,))
        ]
        return self.why_private(paths, head, language, is_local=is_local)
