"""An adapter for the user's repository: offered once, and trained by a process of its own."""
