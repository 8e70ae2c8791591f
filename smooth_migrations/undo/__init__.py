"""The ways in which what a call did is taken back, one a module."""
