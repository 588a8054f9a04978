"""The broker: authenticates, sequences, remembers, schedules and forwards. It never computes."""

import backtestr_protocol as backtestr_protocol  # first: it says which modules are compiled ones
