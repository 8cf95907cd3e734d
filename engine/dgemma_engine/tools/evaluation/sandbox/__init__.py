"""Confined execution of completed programs."""
