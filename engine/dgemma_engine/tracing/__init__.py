"""Tracing: recorders that the observers of diffusion and infilling report to."""
