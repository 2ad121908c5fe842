"""The lake: one store with its names, shards, compactions and damage."""
