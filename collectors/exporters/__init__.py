"""Files that router benchmarks and other tools read, written from a lake. Each module of formats/ owns one.

    grid       what is written: tasks × items × models of a pool without gaps, or with those that are let stand
    texts      texts and names that must survive somebody else's reader
    out        files that appear whole or not at all
    registry   which formats there are, what each needs, and what it cannot carry

Knows no lake beyond its views, and nothing of the importers: what is exported reads back through them in tests only.
"""
