"""What a person runs: thin scripts over collectors. tests/test_layout.py says which modules know Ray."""
