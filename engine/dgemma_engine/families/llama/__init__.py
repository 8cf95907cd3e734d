"""The Llama family: dense decoders with grouped-query attention, such as SmolLM2."""
