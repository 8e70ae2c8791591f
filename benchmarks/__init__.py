"""How long the product takes beside Django's own `migrate`, on real databases: `python -m benchmarks`."""
