"""What leaves the history, in which order, and how nothing is lost on the way."""
