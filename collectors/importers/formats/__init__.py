"""Formats that are read, one module each."""
