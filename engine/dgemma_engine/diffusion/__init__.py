"""Diffusion: canvas, sampler, denoising loop and its plain reference."""
