"""AlphaPulse: a self-improving trading cluster on Ray that learns from its answered predictions."""

__version__ = "0.1.0"
