"""From a dialect-independent question to the engine and back: document keys, shared work, templates, stop words."""
