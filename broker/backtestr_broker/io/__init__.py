"""The parts of the broker that touch the machine: sockets, files, processes and clocks."""
