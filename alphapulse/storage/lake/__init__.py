"""The Delta tables batches of the journals move to, and what keeps them quick to read."""
