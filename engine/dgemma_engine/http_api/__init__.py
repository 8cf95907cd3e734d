"""The HTTP server: an ASGI application over a client's connection to the engine. Torch-free."""
