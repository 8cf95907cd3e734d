"""Adapters of a Llama: a corpus of source files to the file of factors that the engine merges into its base."""
