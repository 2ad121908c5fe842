"""Formats that are written, one module each."""
