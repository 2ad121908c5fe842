"""The data sheet of a published version, and the same answers in the responsible-AI terms of Croissant.

Owns `DATASHEET.md`, with the sections of Gebru et al., Datasheets for Datasets (CACM 64:12, 2021). Every answer comes
from the version's files or the publisher's words, or describes the program; a question without one is "not
stated", never answered by a guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from collectors.lake.layout import SPLITS, published_files
from collectors.publish.card import TEXT, Contents, Description, code, imports, replaces

DATASHEET = "DATASHEET.md"

_UNSTATED = "Not stated by the publisher."

_COLLECTION = (
    "Each model was asked the items of each task, built and judged by lm-eval's own task definitions, and each answer "
    "was kept with its tokens, as the engine counted them."
)
_IMPORTED = (
    "Records with `imported_from` were made by others: their program, settings and verdicts are those of the source."
)
_MISSING = (
    "An answer that is missing through a failure of the collection, and one that nobody could judge, has a null score "
    "and a reason in `failure`; a token count, time or price that nobody stated is null. No missing value is zero."
)
_IMPUTED = "Nothing is imputed."
_CLEANED = (
    "No record was changed after it was judged. Paths, user names and host names of the machines that collected the "
    "data, and access keys, are taken out of all tables but the prompts and answers."
)
_LABELLED = (
    "A verdict is the task's own filter and metric applied to the answer by a program. A verdict of a judge that "
    "judged again stands in `verdicts`, beside the first."
)
_USES = "Training and evaluating routers, which choose a model for each prompt, and comparing models by item."
_SENSITIVE = (
    "Prompts are those of the benchmarks and answers are what models wrote. Neither was screened for personal or "
    "offensive content."
)
_LIMITS = (
    "Scores hold for the prompts, few-shot examples, decoding and library versions of the cells, and for no others.",
    "Public benchmarks may be in the training data of the models.",
    "Times hold for the hardware and the load of the runs.",
)
_MAINTAINED = (
    "A version never changes. Corrections are published as a new version, which names the one that it replaces, and "
    "rows that were taken back are named in `retractions`."
)


def datasheet(description: Description, contents: Contents) -> bytes:
    """DATASHEET.md."""
    parts = [f"# Data sheet: {description.title}\n\nVersion `{contents.version}`. {replaces(contents)}"]
    for title, questions in _sections(description, contents).items():
        answers = "\n\n".join(f"**{question}** {answer or _UNSTATED}" for question, answer in questions.items())
        parts.append(f"## {title}\n\n{answers}")
    return ("\n\n".join(parts) + "\n").encode()


def _sections(description: Description, contents: Contents) -> dict[str, dict[str, str | None]]:
    counts, provenance = contents.counts, contents.provenance
    sources = "; ".join(f"{code(name)}: {code(licence)}" for name, licence in (description.sources or {}).items())
    others = " ".join(f"Imported {line}." for line in imports(contents, code))
    return {
        "Motivation": {
            "For what purpose was the data set created?": description.text or TEXT,
            "Who created it?": "; ".join(map(code, description.creators)) or None,
            "Who funded it?": None,
        },
        "Composition": {
            "What is an instance?": "An answer of one model to one item of a task, under one setup (a cell).",
            "How many are there?": ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) + ".",
            "Which tasks?": _listed([row["task"] for row in provenance["tasks"]]),
            "Which models?": _listed([row["model"] for row in provenance["models"]]),
            "Is any information missing?": f"{_MISSING} {_failures(counts)}",
            "Are there recommended splits?": _splits(contents),
            "Are there errors or sources of noise?": " ".join(_LIMITS),
            "Does it contain confidential, offensive or personal content?": _SENSITIVE,
        },
        "Collection process": {
            "How was the data acquired?": f"{_COLLECTION}{f' {_IMPORTED} {others}' if others else ''}",
            "By which programs?": _programs(contents),
            "Over what time?": f"The runs began from {time[0]} to {time[-1]}."
            if (time := _timeframe(contents))
            else None,
            "Was there an ethical review?": None,
        },
        "Preprocessing, cleaning and labelling": {
            "Was the data cleaned or preprocessed?": f"{_CLEANED} {_IMPUTED}",
            "How was it labelled?": f"{_LABELLED}{_judged(contents)}",
            "Is the raw data kept?": "Answers as they were written are in the table `responses`."
            if counts.get("responses")
            else "The version holds no answers.",
        },
        "Uses": {
            "What is it for?": _USES,
            "What has it been used for?": None,
            "What should it not be used for?": None,
        },
        "Distribution": {
            "How is it distributed?": f"At {description.url}" if description.url else None,
            "Under which licence?": f"The records: {description.licence or 'not stated'}. "
            f"Sources: {sources or 'not stated'}.",
            "How is a copy checked?": "`publish.py verify` compares every file with `manifest.json`.",
        },
        "Maintenance": {
            "Who maintains it?": None,
            "Will it be updated?": _MAINTAINED,
            "What does it replace?": replaces(contents),
        },
    }


def responsible(contents: Contents) -> dict[str, Any]:
    """The terms of Croissant RAI 1.0 that have an answer."""
    terms: dict[str, Any] = {
        "rai:dataCollection": f"{_COLLECTION}{f' {_IMPORTED}' if imports(contents) else ''}",
        "rai:dataCollectionType": ["Experiments", *(["Secondary Data analysis"] if imports(contents) else [])],
        "rai:dataCollectionMissingData": f"{_MISSING} {_failures(contents.counts)}",
        "rai:dataCollectionRawData": "The items of the tasks (table items) and the answers (table responses).",
        "rai:dataImputationProtocol": _IMPUTED,
        "rai:dataPreprocessingProtocol": [_CLEANED],
        "rai:dataAnnotationProtocol": [f"{_LABELLED}{_judged(contents)}"],
        "rai:machineAnnotationTools": _tools(contents),
        "rai:dataUseCases": [_USES],
        "rai:dataLimitations": list(_LIMITS),
        "rai:personalSensitiveInformation": [_SENSITIVE],
        "rai:dataReleaseMaintenancePlan": _MAINTAINED,
    }
    # The specification spells it Timeframe, and mlcroissant 1.1.1 reads TimeFrame.
    terms |= dict.fromkeys(("rai:dataCollectionTimeframe", "rai:dataCollectionTimeFrame"), _timeframe(contents))
    return {term: answer for term, answer in terms.items() if answer}


#: Most names in a list: the manifest has them all.
_MOST = 50


def _listed(names: Sequence[str]) -> str:
    names = sorted(set(names))
    more = f", and {len(names) - _MOST:,} more, which `manifest.json` names" if len(names) > _MOST else ""
    return ", ".join(map(code, names[:_MOST])) + more + "."


def _failures(counts: Any) -> str:
    failures = counts.get("failures", 0)
    return (
        f"The table `failures` has {failures:,} rows, each with its kind." if failures else "No failure is on record."
    )


def _splits(contents: Contents) -> str:
    kept = contents.names(published_files(SPLITS))
    return "The table `splits` has those that the publisher keeps." if kept else "The version holds none."


def _tools(contents: Contents) -> list[str]:
    """The programs that judged, each with its version."""
    judged = {f"lm-eval {row['lm_eval']}" for row in contents.provenance["versions"] if (row or {}).get("lm_eval")}
    return sorted(judged) + [f"{row['judge']} ({row['judge_id']})" for row in contents.provenance.get("judges", ())]


def _programs(contents: Contents) -> str | None:
    rows = [
        ", ".join(f"{name} {value}" for name, value in sorted(row.items()) if value)
        for row in contents.provenance["versions"]
        if row
    ]
    return "; ".join(map(code, filter(None, rows))) or None


def _judged(contents: Contents) -> str:
    names = [code(row["judge"]) for row in contents.provenance.get("judges", ())]
    return f" Judged again by {', '.join(names)}." if names else ""


_RUN = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)-")


def _timeframe(contents: Contents) -> list[str]:
    """The starts of the first and the last run: the names of runs begin with theirs, those of imports do not."""
    starts = [match.groups() for name in contents.provenance["runs"] if (match := _RUN.match(name))]
    first = ["{}-{}-{}T{}:{}:{}+00:00".format(*min(starts))] if starts else []
    return [*first, contents.provenance["created"]] if contents.provenance["created"] else []
