"""Recordings of every event that the core took, and what is made of them: playback and timeline."""
