"""The parts of the client that touch the machine: sockets, threads and the connection file."""
