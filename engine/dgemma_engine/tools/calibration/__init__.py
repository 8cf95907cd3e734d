"""Fit of `calibration.json`: records of holes with known middles in, numbers and plots out."""
