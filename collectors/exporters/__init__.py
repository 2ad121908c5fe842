"""Files that router benchmarks and other tools read, written from a lake. Each module of formats/ owns one.

    grid       the rows to write: tasks × items × models of a pool, with or without gaps
    texts      texts and names that must survive other programs' readers
    out        files that appear whole or not at all
    registry   the formats, the rows that each needs, and the columns that each loses

Knows no lake beyond its views, and nothing of the importers: only tests read exports back through them.
"""
