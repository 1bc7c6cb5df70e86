"""The routes of the HTTP door, by what they are about."""
