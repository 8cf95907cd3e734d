"""The way from a request to the engine and back: the wire `Context`, connection, retries, status."""
