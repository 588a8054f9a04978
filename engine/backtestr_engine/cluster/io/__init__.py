"""This package touches the machine: it reads the facts of this process, and connects to a Dask scheduler."""
