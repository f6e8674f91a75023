"""What processes of one run know of each other: rank, rendezvous, signals."""
