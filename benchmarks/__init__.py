"""How the published figures are measured: `python -m benchmarks.NAME` in the checkout. No part of the package."""
