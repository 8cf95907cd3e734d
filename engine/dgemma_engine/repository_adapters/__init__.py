"""Adapters that `dgemma-engine tune` trained on a repository: their store in the user's data folder."""
