"""Privacy: whether a file may be read, by its name, its first lines and ignore files."""
