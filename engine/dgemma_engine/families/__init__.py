"""Model families: how a checkpoint of each architecture is recognised, read, and run."""
