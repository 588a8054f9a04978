"""The `io` folder holds all client code that touches sockets, threads, the clock or the connection file."""
