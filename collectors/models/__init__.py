"""Models: the hub's catalog, pinned revisions, files, sizes, and placements on GPUs."""
