"""One dialect per file: which paths it answers, how it reads a body, what it writes, the shape of its errors."""
