"""Routers of models: the contract, those of the field, and the board that ranks them.

A router is a class that `registry.load` finds by `module:factory`, here or anywhere. It is fitted on the training
questions alone and chooses a candidate for each test question. Nothing here is part of what a reader's install needs:
scikit-learn and SciPy come with the extra `routers`.
"""
