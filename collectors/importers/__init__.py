"""Records that others wrote: one module a format in formats/, read through files.py and stored by staging.py."""
