"""Cancellation, cooperative steps and timing. Torch-free."""
