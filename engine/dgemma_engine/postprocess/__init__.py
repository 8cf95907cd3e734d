"""Postprocessing: raw completion -> the text shown. Pure functions; standard library only."""
