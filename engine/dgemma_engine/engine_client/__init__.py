"""A client's connection that outlives the engine: state machine, retries, status. Torch-free."""
