"""Asks servers that speak OpenAI's protocol. See README.md."""
