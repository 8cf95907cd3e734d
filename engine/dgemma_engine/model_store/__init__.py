"""Models by short name: the table of them, where they are kept, and how one is fetched from the package index."""
