"""Judges answers in processes of their own, which can be ended and are handed nothing of a run. See README.md."""
