"""The scripts that a person runs, thin ones over collectors. console/ writes their output, fleet/ uses Ray."""
