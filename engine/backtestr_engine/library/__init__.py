"""The algorithms that a worker knows: built in, from files, and registered."""
