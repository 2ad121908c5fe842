"""Prices of models and GPUs, as tables in a lake."""
