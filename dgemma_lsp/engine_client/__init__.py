"""Connection to the engine: state machine, retries, status."""
