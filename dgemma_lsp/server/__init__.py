"""LSP features: the only package that imports pygls or lsprotocol, one file per feature."""
