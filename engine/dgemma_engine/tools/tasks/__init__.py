"""Tasks of a user's own: rows of given and free text, as tokens of a prompt and a canvas, and solved with a model."""
