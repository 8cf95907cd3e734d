"""Open documents: texts, positions, notebooks, URIs. Knows no LSP types."""
