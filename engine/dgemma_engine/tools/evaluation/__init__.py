"""Evaluation: hole files in, answers judged one by one, figures with their intervals out."""
