"""The chosen model where it is not there yet: offered once, and fetched by a process of its own."""
