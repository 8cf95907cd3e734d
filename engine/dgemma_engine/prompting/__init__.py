"""Prompts: the caches of encoded ones."""
