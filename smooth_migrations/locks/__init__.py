"""Locks of PostgreSQL's: which ones a plan takes, how many, and how to take the strong ones without harm to others."""
