"""What the market answered, and what is learned from it."""
