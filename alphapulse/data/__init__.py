"""Market data: where events come from and the cache they end in."""
