"""Tokenizer, vocabulary index and token healing."""
