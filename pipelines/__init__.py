"""What a person runs: thin scripts over collectors, with console/ for what they print and fleet/ for Ray."""
