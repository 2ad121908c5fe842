"""Judges answers in processes of their own, which can be ended and hold nothing of a run. See README.md."""
