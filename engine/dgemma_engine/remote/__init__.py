"""An engine on another machine, asked over HTTP: where it is, what may stand in the way, one round trip a question."""
