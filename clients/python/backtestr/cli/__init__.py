"""The `backtestr` command and what it prints."""
