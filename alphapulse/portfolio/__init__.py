"""Positions, cash and what they are worth."""
