"""y = x + 1 for each peer, run by the peer's own Python, which cannot import this package."""
