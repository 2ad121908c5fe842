"""Plans runs, collects their cells, estimates and records them, and reports their state."""
