"""The client's core: sessions, streams and recovery as functions of events and time, without I/O."""
