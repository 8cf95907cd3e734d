"""Cross-file context: what the model reads besides the document."""
