"""Tasks of a user's own: what `tune --task` learns, and `fill` that solves them."""
