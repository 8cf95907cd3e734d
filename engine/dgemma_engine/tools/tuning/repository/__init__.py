"""A repository's folder to files to learn from, and to holes in files that are held out."""
