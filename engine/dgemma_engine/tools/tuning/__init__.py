"""`dgemma-engine tune`: a user's repository to an adapter for it, installed only where it is better."""
