"""Makes pages of the reference of what the program says of itself: `python -m docs_build` writes them into `docs/`."""
