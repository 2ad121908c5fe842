"""One module a format that is read."""
