"""Training batches: examples, corrupted canvases, masks."""
