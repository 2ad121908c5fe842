"""Which models there are, what their files say, how large they are and where they fit."""
