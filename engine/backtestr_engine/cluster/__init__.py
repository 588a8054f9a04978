"""Sweeps on a cluster: which workers may compute, which gets what, and how that scales. `io` talks to the cluster."""
