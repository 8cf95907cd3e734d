"""Postprocessing: raw completion -> the text shown. Pure functions."""
