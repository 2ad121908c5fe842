"""Published versions of a lake: their files, their card, and where they go."""
