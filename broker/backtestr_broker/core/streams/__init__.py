"""Topics: sequence numbers, retained messages, listeners and feeds."""
