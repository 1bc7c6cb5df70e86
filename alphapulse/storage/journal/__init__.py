"""The journal of a run: durable at once, one writer, any number of readers."""
