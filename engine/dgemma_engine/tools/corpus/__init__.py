"""Training text: source files, licences, duplicates, holes."""
