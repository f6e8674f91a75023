"""How fast it is on this machine: measured side by side in one call, every raw value kept in benchmarks/results/."""
