"""Prompts: the fill-in-the-middle prompt and the caches of encoded prefixes."""
