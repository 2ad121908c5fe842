"""How one cell is collected: config, model identities, lm-eval's tasks, engines, records, the lake. Knows no Ray."""

import os

# tqdm reads this when it is first imported: lm-eval and datasets draw bars that fill a job's log line by line.
os.environ.setdefault("TQDM_DISABLE", "1")
