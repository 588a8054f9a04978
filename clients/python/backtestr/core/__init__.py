"""The client's core holds sessions, streams and recovery as functions of events and time, without I/O."""
