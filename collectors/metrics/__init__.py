"""The measures of router benchmarks, computed from arrays of items × models.

    gaps             arrays with unknown values: complete items, means that count left-out items
    pool             bounds of a model pool: each model, the oracle, chance, the cheapest correct model
    scaling          the same bounds by pool size: exact expectations over random pools, and random draws
    complementarity  for each pair of models, how often only one of them is right
    routereval       RouterEval: V_R, V_B, E_p, r_o(p)
    plane            RouterBench: cost and quality, hulls, AIQ, willingness to pay; the Pareto frontier
    routellm         RouteLLM: a strong and a weak model, PGR, APGR, CPT
    routerarena      RouterArena: the score of accuracy and cost
    lessons          Routing lessons (arXiv 2405.00467): accuracy and latency
    splits           the train and test items of RouterEval and RouterBench, RouterEval's pools, and our own splits
    near_duplicates  texts that nearly repeat each other
    resampling       paired bootstrap over questions, Holm's correction, ties
    leakage          whether choices know the answers
    agreement        all figures of one router at once

Knows no lake and no files: arrays in, numbers out. A missing score is NaN, never wrong; an unknown cost is NaN, never
0. Every figure leaves out the items that lack one of its inputs, and counts them.
"""
