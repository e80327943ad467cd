"""The wanted membership of clusters: where it is said, what it takes to get there, and who makes it so."""
