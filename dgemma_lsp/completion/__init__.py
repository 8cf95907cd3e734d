"""Life cycle of a completion request: cache, in-flight reuse, debounce, prefetch."""
