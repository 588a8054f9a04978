"""Everything the broker knows of its clients: sessions, request keys, admission and limits."""
