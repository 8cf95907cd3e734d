"""Evaluation tasks: holes chosen and cut from source files, and their files."""
