"""Model weights in few bits: number formats, layouts on disk and in memory, and the way from one to another."""
