"""The Ray actors: lifecycle and loop only, each method a line or two onto a plain class."""
