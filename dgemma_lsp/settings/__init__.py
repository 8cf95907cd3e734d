"""Settings: the table of options, a tolerant reader, the JSON schema."""
