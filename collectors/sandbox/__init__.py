"""Runs a program that nobody trusts, such as a model's answer, where it reaches nothing. See README.md."""
