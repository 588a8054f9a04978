"""The broker's core: a function of events and time, without sockets, files, threads or clock."""
