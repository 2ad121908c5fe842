"""Judges the answers of a lake again, into tables of their own, and checks those that are there. See README.md."""
