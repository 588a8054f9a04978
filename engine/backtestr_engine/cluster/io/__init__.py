"""What touches the machine: the facts of this process, and the connection to a Dask scheduler."""
