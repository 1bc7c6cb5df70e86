"""The nouns of AlphaPulse: frozen values that cannot be built wrong."""
