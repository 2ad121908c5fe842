"""Runs: what they plan, how a cell is collected, how they stand and how they ended."""
