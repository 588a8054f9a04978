"""The parts of the server without I/O: what a page sends and is sent, what is let in, and what is refused."""
