"""From a question in no dialect to the engine and back: document keys, shared work, templates, stop words."""
