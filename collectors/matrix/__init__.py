"""The router matrix as arrays, pools of models, and the choices of routers."""
