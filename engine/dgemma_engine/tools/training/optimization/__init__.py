"""Optimization: losses, optimizer, schedule, balance of experts."""
