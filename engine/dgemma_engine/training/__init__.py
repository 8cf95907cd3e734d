"""The trainer: Python files on this machine in, a checkpoint that fills holes out."""
