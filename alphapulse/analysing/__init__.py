"""Check features, labels and models for look-ahead on a recording: what `lookahead` does."""
