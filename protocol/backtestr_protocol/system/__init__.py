"""Everything in which operating systems differ, one module for each ability; each finds out what this system has."""
