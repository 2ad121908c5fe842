"""What a person runs: thin scripts over collectors, and fleet.py, the only module that knows Ray."""
