"""Cross-file context: what the model reads besides the document, and the wire `Context` built of both."""
