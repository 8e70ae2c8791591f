"""One run as a page for a browser: a single HTML file that asks nothing of the network."""
