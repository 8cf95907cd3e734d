"""An engine on another machine, asked over HTTP: location, faults as sentences, one round trip for each request."""
