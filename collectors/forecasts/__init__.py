"""Forecasts of what was not asked: which items to ask, what the answers say about the others, and how sure that is.

Arrays in, numbers out; a score lies between 0 and 1 and NaN is an answer that is not there. A forecast is never a
record: it has a table and views of its own.
"""
