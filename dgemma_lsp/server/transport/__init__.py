"""Bytes of the editor: standard streams, TCP, framing, and the editor's process."""
