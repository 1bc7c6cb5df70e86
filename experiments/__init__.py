"""Questions put to the data: each file is one, from what it reads to what it found."""
