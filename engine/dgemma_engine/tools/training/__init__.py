"""The trainer: a corpus in, a checkpoint that fills holes out."""
