"""The broker: authenticates, sequences, remembers, schedules and forwards. It never computes."""
