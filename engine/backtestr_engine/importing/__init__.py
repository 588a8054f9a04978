"""Imports: files of bars and ticks in any known format become validated bars."""
