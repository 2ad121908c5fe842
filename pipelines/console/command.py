"""The command `routerlake`: one name for all scripts of pipelines/, which stay commands of their own.

Owns what its help teaches. It imports only the script that it runs, and knows nothing of the work of any.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import NoReturn

from pipelines.console.script import COMMAND, run_script

#: Command, a module of pipelines/ -> its line in the help.
COMMANDS = {
    "collect": "collect models' answers, question by question, into a lake",
    "status": "show where a run stands",
    "catalog": "list the models of a hub, for configs to choose from",
    "matrix": "query a lake or published version, or show it",
    "judge": "judge stored answers again, or check the verdicts",
    "score": "judge routers by their choices",
    "route": "train routers, let them choose, and rank them",
    "forecast": "foretell what was not asked, with bands",
    "plot": "draw cost and quality of the pool, as pictures and one page",
    "prices": "put prices into a lake",
    "tokens": "count all texts with one tokenizer",
    "ingest": "bring others' records into a lake",
    "forget": "take records back, or bring them back",
    "export": "write the files of other benchmarks",
    "compact": "make a lake few large files, or verify it",
    "publish": "make a version that never changes; verify or compare versions",
}

HELP = f"""\
usage: {COMMAND} COMMAND …

Collects what language models answer, question by question, with what each answer costs, and makes of it the matrix that
routers are trained and judged on. Records lie in a lake: a folder or a bucket.

begin with:
  {COMMAND} collect --config my.yaml --lake lake --dry-run      # check models and tasks, print the plan
  {COMMAND} matrix --lake lake --show                           # leaderboards, a corner of the matrix, failures
  {COMMAND} score --choices my-router.csv --lake lake           # judge a router by its choices

commands:
{"".join(f"  {name:<9} {line}{chr(10)}" for name, line in COMMANDS.items())}
`{COMMAND} COMMAND --help` has examples and exit codes. In Python: import routerlake"""


def main() -> NoReturn:
    run_script(lambda: run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Runs one command. Returns its exit code; 2 for an unknown one."""
    name, rest = (argv[0], list(argv[1:])) if argv else ("--help", [])
    if name in ("-h", "--help", "help"):
        print(HELP)
        return 0
    if name == "--version":
        print(COMMAND, importlib.metadata.version("routerlake"))
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        print(f"{COMMAND}: no command {name!r}; {hint}", file=sys.stderr)
        return 2
    sys.argv = [f"{COMMAND} {name}", *rest]  # its name in help and messages
    code: int = importlib.import_module(f"pipelines.{name}").main(rest)
    return code


if __name__ == "__main__":
    main()
