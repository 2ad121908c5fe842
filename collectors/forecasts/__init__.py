"""Forecasts of scores on items that were not asked: which items to ask, what to expect of the others, and how surely.

Arrays in, numbers out; a score lies between 0 and 1 and NaN is an answer that is not there. A forecast is never a
record: it has a table and views of its own.
"""
