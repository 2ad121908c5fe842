"""Published versions of a lake: their files, their card, and the places to publish them to."""
