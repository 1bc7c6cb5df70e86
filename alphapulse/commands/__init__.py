"""The commands of the front door, one file a group; none does the work itself."""
