"""Two releases with models of their own, at work on one database before, during and after a deploy."""
