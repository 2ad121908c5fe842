"""Routers of models: the contract, those of the field, and the board that ranks them.

A router is a class that `registry.load` finds by `module:factory`, here or anywhere. It is fitted on the training
questions alone and chooses a candidate for each test question. A reader's install does without all of it:
scikit-learn and SciPy come with the extra `routers`.
"""
