"""Files of bars and ticks, from any known format to checked bars."""
