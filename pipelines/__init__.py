"""The scripts that people run. They are thin: collectors does the work. tests/test_layout.py lists who imports Ray."""
