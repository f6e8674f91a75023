"""Speed of the user's own config on this machine: interleaved rounds, medians with their spread, one result file for each."""
