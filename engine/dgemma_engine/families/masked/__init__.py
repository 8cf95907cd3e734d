"""Masked diffusion on dense decoders whose attention sees prompt, canvas and suffix alike."""
