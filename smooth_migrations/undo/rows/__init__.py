"""Rows that code changed, before and after, so that they come back exactly where no ROLLBACK takes them back.

What a transaction has changed is what differs, right before it commits, between how it sees a table itself and how
another session does. What it has written is locked until then, so that the other session sees it as it was right before
the first write; what others commit meanwhile is the same to both.
"""
