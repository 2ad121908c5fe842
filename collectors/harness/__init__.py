"""lm-eval behind one door: its task definitions build the requests and judge the answers, unchanged.

    tasks     load tasks, their items and the settings that identify them
    encoding  render and tokenise the items
    requests  ask an engine and count the usage of each answer
    judge     turn answers into record rows with lm-eval's filters and metrics

No other package imports lm-eval. This one knows nothing of Ray, and does not care which engine answers.
"""
