"""Side by side with the peers: `make comparison` does each case with each, and writes the page."""
