"""One dialect per file: its paths, how it reads a body, its answers, and the shape of its errors."""
