"""The router matrix as arrays, pools of models, and what routers chose."""
