"""Groups of tensors that operations take and return: matrices in their number formats, routing, distributions."""
