"""Ways to ask journals and lake together."""
