"""Many engines on a Ray cluster. No other module imports Ray."""
