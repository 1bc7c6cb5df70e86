"""What survives: homes, runs, the journal and the lake."""
