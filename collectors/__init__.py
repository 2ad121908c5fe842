"""How one cell is collected: config, model identities, lm-eval's tasks, engines, records, the lake. Knows no Ray."""
