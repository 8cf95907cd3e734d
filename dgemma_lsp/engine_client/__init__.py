"""The server's requests to the engine: settings to a connection, a `Request` to an `Infill`, states to a status bar."""
