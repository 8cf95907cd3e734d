"""Measuring how well holes are filled: hole files in, answers judged one by one, figures with their intervals out."""
