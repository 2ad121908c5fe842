"""Records that others wrote: one module per family of formats, all read through files.py and put down in staging.py."""
