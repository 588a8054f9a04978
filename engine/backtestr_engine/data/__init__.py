"""Bars and the catalogue that stores them."""
