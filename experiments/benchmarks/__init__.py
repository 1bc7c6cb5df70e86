"""What is fast and what is not, each beside its peer or its physical limit in the same run."""
