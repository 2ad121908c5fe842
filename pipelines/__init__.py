"""What a person runs: thin scripts over collectors. Ray is known to cluster.py, worker.py and fleet.py alone."""
