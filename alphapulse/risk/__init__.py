"""Limits that no order passes unreviewed."""
