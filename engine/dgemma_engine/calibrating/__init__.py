"""Fits and pictures behind `calibration.json`: records of holes with known middles in, numbers out. Never serving."""
