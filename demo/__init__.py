"""A deploy that succeeds and one that fails, on five real databases, for a person to watch: `python -m demo`."""
