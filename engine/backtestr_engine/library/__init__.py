"""The library: all algorithms that a worker can run, built in, from its folder, and registered."""
