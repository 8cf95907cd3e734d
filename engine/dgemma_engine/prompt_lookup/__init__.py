"""Prompt lookup: candidates copied from the document and its snippets by n-gram matches."""
