"""Serving: the daemon, the scheduler with its device thread, jobs."""
