"""The way from a `Request` to an `Infill`: the wire `Context`, settings to a connection, states to a status bar."""
