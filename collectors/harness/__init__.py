"""lm-eval behind one door: its task definitions build the requests and judge the answers; nothing of them is rewritten.

    tasks     loading tasks, their items and what identifies them
    requests  rendering, tokenising and asking an engine
    judge     lm-eval's filters and metrics, as record rows

Knows nothing of Ray, stores or which engine answers. No other module imports lm-eval.
"""
