"""Training of a Llama's canvas adapter on a task."""
