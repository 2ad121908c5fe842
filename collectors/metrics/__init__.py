"""What a router is worth: the measures that router benchmarks publish, over arrays items × models.

    known            which items a figure may rest on; means that say how many they left out
    pool             what a pool of models can reach: each model, the oracle, chance, the cheapest that is right
    scaling          what pools of a size can reach: exact expectations over random pools, and draws
    complementarity  for each pair of models, how often only one of them is right
    routereval       RouterEval: V_R, V_B, E_p, r_o(p)
    plane            RouterBench: cost and quality, hulls, AIQ, willingness to pay; the Pareto frontier
    routellm         RouteLLM: a strong and a weak model, PGR, APGR, CPT
    routerarena      RouterArena: the score of accuracy and cost
    lessons          Routing lessons (arXiv 2405.00467): accuracy and latency
    splits           which items RouterEval and RouterBench train on, which models RouterEval pools
    judging          all of one router's figures at once

Knows no lake and no files: arrays in, numbers out. Everywhere a missing score is NaN, never wrong, and an item that
lacks what a figure needs is left out and counted; an unknown cost is NaN, never 0.
"""
