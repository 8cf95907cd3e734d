"""Local usage statistics: events, counters, their file and report."""
