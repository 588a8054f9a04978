"""The parts of the server that touch the machine: the web server, the sockets to the broker, and files."""
