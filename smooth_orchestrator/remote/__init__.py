"""Workers on other machines: sessions that are jobs of a queue, and messages by way of the queue's database."""
