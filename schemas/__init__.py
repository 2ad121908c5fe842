"""The contract of the data: row schemas, identities, failure kinds and the SQL views over them.

Knows nothing of Ray, engines, lm-eval or storage clients; the other packages import it, it imports none of them.
"""
