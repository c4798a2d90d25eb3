"""Speed beside a baseline and beside the peers: `make bench`. Goals are each bench's own."""
