"""Privacy: whether a file may be completed in or read as context."""
