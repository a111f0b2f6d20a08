"""The plots of a table of results, each a file of its own: what it shows, what it needs, and how its numbers are gathered."""
