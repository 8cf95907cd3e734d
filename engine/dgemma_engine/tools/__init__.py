"""Offline tools: corpus, training, evaluation, calibration, conversion. Never serving."""
