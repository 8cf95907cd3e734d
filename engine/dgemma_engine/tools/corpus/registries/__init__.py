"""Source files from package registries, by name: fetched by their ordinary clients, read, never installed or run."""
