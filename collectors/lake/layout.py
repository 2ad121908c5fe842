"""Spells and parses the names of all objects in a lake and in a published version; no other module does.

A table is a folder of the same name (schemas.records.TABLES), and schemas.identity.ShardName spells a shard's name.
Knows nothing of the contents of objects and of stores.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from schemas.identity import ShardName, safe_name
from schemas.records import GLOBS, SCHEMA_FILES, TABLES

# ---- folders

SHARDS = "shards"
MODELS = "models"
RUNS = "runs"
FAILURES = "failures"
IMPORTS = "imports"
#: Compactions, each in a folder with its number.
COMPACTIONS = "compact"
#: Damaged objects that prune set aside, under their own names.
DAMAGED = "damaged"
#: Copies of prepared requests, for all nodes.
REQUESTS = "cache/requests"
#: The packed matrix of a published version, and the matrix by task.
PACKED = "packed"
MATRIX = "matrix"

#: Levels of folders and names below a lake's root, without objects that were set aside.
DEPTH = 4

#: Values of a metric over all items of a cell or group.
AGGREGATES = "aggregates"
#: Cells of a generation that were taken back, listed at that time.
RETRACTIONS = "retractions"
#: Divisions of questions into training and test.
SPLITS = "splits"
#: Expected scores of questions that were not asked, and the fits behind them, which commit them.
FORECASTS = "forecasts"
FORECAST_FITS = "forecast_fits"
#: Verdicts of stored answers that were judged again.
VERDICTS = "verdicts"
#: Judges behind verdicts, with version and settings.
JUDGES = "judges"

#: The item lists of sparse shards, each once under its digest.
ITEM_SETS = "item_sets"
#: The item lists that runs ask first of a task.
PROBE_SETS = "probe_sets"

# Names that are reserved for coming tables.
#: Named pools of candidates.
POOLS = "pools"
RESERVED = (POOLS,)

# Notes of runs at work. They are no tables, and no reader of records opens them.
#: Shards at work; claims expire, and no commit depends on one. Signals to a run lie here, too.
CLAIMS = "claims"
#: Spent money, by the name of a budget.
SPEND = "spend"

# ---- tables of a lake

_TABLE_OF_SCHEMA_FILE = {name: table for table, name in SCHEMA_FILES.items()}


def shards_folder(task: str) -> str:
    return f"{SHARDS}/task={safe_name(task)}"


def shard_name(task: str, shard: ShardName) -> str:
    return f"{shards_folder(task)}/{shard}"


def is_of_task(task: str, name: str) -> bool:
    """Whether an object of shards/, items/ or a compaction lies in the folder of this task."""
    return folder_of_task(name) == f"task={safe_name(task)}"


def folder_of_task(name: str) -> str:
    """The name of the folder for its task that an object of shards/, items/ or a compaction lies in."""
    return name.split("/")[-2]


def task_name_of(name: str) -> str:
    """The task of an object in the folder of one, as it is spelled in names."""
    return folder_of_task(name).removeprefix("task=")


def items_folder(task: str) -> str:
    return f"items/task={safe_name(task)}"


def items_name(task: str, items_digest: str, first: int | None = None) -> str:
    """The object with a task's items, or with the items from `first` on that were added to an imported table."""
    added = "" if first is None else f"-{first:07d}"
    return f"{items_folder(task)}/{items_digest}{added}.parquet"


def is_items(name: str) -> bool:
    """Whether an object is of items/, with rows."""
    return name.startswith("items/") and is_of_table("items", name)


def items_digest_of(name: str) -> str:
    """The digest of an object's item table. Items that were added later have the digest of the table that grew."""
    return _stem(name).partition("-")[0]


def is_added_to_items(name: str) -> bool:
    """Whether an object holds items that were added to a table later."""
    return "-" in _stem(name)


def model_name(model: str, revision: str) -> str:
    """The row of a model that was loaded."""
    return f"{MODELS}/{safe_name(model)}-{safe_name(revision)}.parquet"


def imported_models_name(import_id: str) -> str:
    return f"{MODELS}/{import_id}.parquet"


def listed_models_name(run_id: str) -> str:
    """The models that an update of the hub's catalog listed."""
    return f"{MODELS}/listed-{run_id}.parquet"


def read_models_name(run_id: str, number: int) -> str:
    """A batch of models that an update of the hub's catalog read."""
    return f"{MODELS}/read-{run_id}-{number:05d}.parquet"


def supported_models_name(run_id: str) -> str:
    """The models that an installed vLLM has a class for."""
    return f"{MODELS}/vllm-{run_id}.parquet"


def holds_many_models(name: str) -> bool:
    """Whether an object of models/ is of an import or a catalog. Its name is then not made of its rows."""
    return re.match(r"(import|listed|read|vllm)-", _stem(name)) is not None


def run_name(run_id: str) -> str:
    """The object of a run's plan, or of an import's cells."""
    return f"{RUNS}/{run_id}.parquet"


def run_id_of(name: str) -> str | None:
    """The run or import of an object in runs/; None for another object."""
    return _stem(name) if is_of_table(RUNS, name) else None


def is_run(name: str) -> bool:
    """Whether an object is of runs/, with rows."""
    return name.startswith(f"{RUNS}/") and is_of_table(RUNS, name)


def is_end(name: str) -> bool:
    return name.startswith("run_ends/") and is_of_table("run_ends", name)


def run_id_of_end(name: str) -> str:
    return _stem(name)


def end_name(run_id: str) -> str:
    """The object with the end of a run."""
    return f"run_ends/{run_id}.parquet"


def aggregates_name(run_id: str) -> str:
    """The values over whole cells and groups that a run completed."""
    return f"{AGGREGATES}/{run_id}.parquet"


def judged_aggregates_name(judge_id: str, part: str) -> str:
    """Values over whole cells by the verdicts of a judge."""
    return aggregates_name(f"{judge_id}-{part}")


def is_of_judge(name: str, judge_id: str) -> bool:
    """Whether an object of aggregates/ has values by the verdicts of a judge."""
    return name.startswith(f"{AGGREGATES}/{judge_id}-")


def split_name(split: str) -> str:
    return f"{SPLITS}/{split}.parquet"


def forecasts_name(forecast: str, number: int) -> str:
    """The `number`th part of a forecast."""
    return f"{FORECASTS}/{forecast}-{number:05d}.parquet"


def forecast_fit_name(forecast: str) -> str:
    """The object that commits a forecast: its parts count once it is there."""
    return f"{FORECAST_FITS}/{forecast}.parquet"


def item_set_name(item_set: str) -> str:
    """The object with the items of a list."""
    return f"{ITEM_SETS}/{item_set}.parquet"


def probe_set_name(items_digest: str, upto: int, size: int, version: int) -> str:
    """The object with the choice of `size` items among the first `upto` of an item table."""
    return f"{PROBE_SETS}/{items_digest}-{upto:07d}-{size:07d}-{version:03d}.parquet"


def judge_name(judge_id: str) -> str:
    """The row of a judge."""
    return f"{JUDGES}/{judge_id}.parquet"


def verdicts_name(judge_id: str, shard: ShardName) -> str:
    """The verdicts of one judge on the answers of a shard."""
    return f"{VERDICTS}/{judge_id}-{shard}"


def parse_verdicts(name: str) -> tuple[str, ShardName] | None:
    """The judge and the shard of an object with verdicts; None for another object."""
    match = re.fullmatch(rf"{VERDICTS}/(?P<judge>[0-9a-f]{{16}})-(?P<shard>[^/]+)", name)
    shard = match and ShardName.parse(match["shard"])
    return (match["judge"], shard) if match and shard else None


def price_name(table: str, content: str) -> str:
    """Rows that one command added to prices/, gpu_prices/ or price_names/."""
    return f"{table}/{content}.parquet"


def is_of_table(table: str, name: str) -> bool:
    """Whether `name`, listed below the folder of a table of GLOBS, is one of its objects with rows."""
    if name == SCHEMA_FILES[table] or name.count("/") != GLOBS[table].count("/") or not name.endswith(".parquet"):
        return False
    return table != SHARDS or ShardName.fits(name)


def table_of(name: str) -> str:
    """The table of schemas.records.TABLES of an object's rows."""
    if name in _TABLE_OF_SCHEMA_FILE:
        return _TABLE_OF_SCHEMA_FILE[name]
    if not is_compacted(name):
        return name.split("/")[0]
    kind = f"{COMPACTIONS}/{_stem(name).split('-')[0]}"
    return kind if kind in TABLES else f"{COMPACTIONS}/folded"


# ---- notes of runs at work


def claim_name(shard: ShardName, number: int) -> str:
    """The `number`th claim of a shard."""
    return f"{CLAIMS}/{_stem(str(shard))}-{number}"


_CLAIM = re.compile(rf"{CLAIMS}/(?P<shard>.+)-(?P<number>[0-9]{{1,6}})")


def parse_claim(name: str) -> tuple[ShardName, int] | None:
    """The shard and the number of a claim; None for another object."""
    match = _CLAIM.fullmatch(name)
    shard = match and ShardName.parse(f"{match['shard']}.parquet")
    return (shard, int(match["number"])) if match and shard else None


def signal_name(run_id: str, number: int, signal: str) -> str:
    """A signal to a run, such as "pause". The one with the highest number holds."""
    return f"{CLAIMS}/{run_id}-{number:06d}-{signal}"


def parse_signal(name: str) -> tuple[str, int, str] | None:
    """The run, the number and the signal; None for another object."""
    match = re.fullmatch(rf"{CLAIMS}/(.+)-([0-9]{{6}})-([a-z]+)", name)
    return (match[1], int(match[2]), match[3]) if match else None


def budget_folder(budget: str) -> str:
    """The folder of all that runs spent under the name of a budget."""
    return f"{SPEND}/{safe_name(budget)}"


def spend_name(budget: str, run_id: str, number: int) -> str:
    """The `number`th account of a run's spending; each replaces those before it."""
    return f"{budget_folder(budget)}/{run_id}-{number:06d}.json"


def parse_spend(name: str) -> tuple[str, int] | None:
    """The run and the number of an account; None for another object."""
    match = re.fullmatch(rf"{SPEND}/[^/]+/(.+)-([0-9]{{6,}})\.json", name)
    return (match[1], int(match[2])) if match else None


def holds_content(name: str) -> bool:
    """Whether an object's rows are items, or records or verdicts of them."""
    return table_of(name) in (SHARDS, "items", VERDICTS, "compact/records", "compact/responses", "compact/older")


# ---- failures


def failure_name(run_id: str, content: str) -> str:
    return f"{FAILURES}/{run_id}-{content}.parquet"


def damage_name(content: str) -> str:
    """The failure of a damaged object. Its name differs from all others, so that none has to be opened."""
    return f"{FAILURES}/damaged-{content}.parquet"


def is_damage(name: str) -> bool:
    return name.startswith(f"{FAILURES}/damaged-")


def quarantine_name(model_digest: str, shard: ShardName, content: str) -> str:
    """The failure that puts a model into quarantine, with the shard of its lost engine."""
    return f"{FAILURES}/quarantine-{model_digest}-{str(shard).removesuffix('.parquet')}-{content}.parquet"


_QUARANTINE = re.compile(rf"{FAILURES}/quarantine-(?P<model>[0-9a-f]{{16}})-(?P<shard>.+)-[0-9a-f]{{8}}\.parquet")


def parse_quarantine(name: str) -> tuple[str, ShardName] | None:
    """The model's digest and the shard; None for another failure."""
    match = _QUARANTINE.fullmatch(name)
    shard = match and ShardName.parse(f"{match['shard']}.parquet")
    return (match["model"], shard) if match and shard else None


_OF_A_RUN = re.compile(rf"{FAILURES}/([0-9]{{8}}T[0-9]{{6}}-[0-9a-f]{{8}})-")


def may_be_failure_of(run_id: str, name: str) -> bool:
    """Whether a failure may be of this run: its name has this run's id, or none."""
    match = _OF_A_RUN.match(name)
    return match is None or match[1] == run_id


# ---- imports


def import_run_id(content: str) -> str:
    """The id of an import in place of a run's."""
    return f"import-{content}"


def is_import(run_id: str) -> bool:
    return run_id.startswith("import-")


def is_of_import(name: str) -> bool:
    """Whether an import wrote an object of a table with one object for each run."""
    return is_import(_stem(name))


def import_name(content: str) -> str:
    """The row of an imported file."""
    return f"{IMPORTS}/{content}.parquet"


def import_claim_name(content: str) -> str:
    """The claim of the import that is at work on a source."""
    return f"{IMPORTS}/claim-{content}.json"


def rejects_name(import_id: str, number: int) -> str:
    return f"rejects/{import_id}-{number:04d}.parquet"


def suspicions_name(import_id: str) -> str:
    return f"suspicions/{import_id}.parquet"


def is_retraction(name: str) -> bool:
    """Whether an object is of retractions/, with rows."""
    return name.startswith(f"{RETRACTIONS}/") and is_of_table(RETRACTIONS, name)


def retraction_name(retraction_id: str) -> str:
    return f"{RETRACTIONS}/{retraction_id}.parquet"


# ---- compactions


def is_compacted(name: str) -> bool:
    """Whether a compaction wrote the object."""
    return name.startswith(f"{COMPACTIONS}/")


def manifest_name(number: int) -> str:
    return f"{_compaction(number)}/manifest.json"


def manifest_names(names: Iterable[str]) -> list[str]:
    """The manifests among the objects below compact/, oldest first, without misplaced copies."""
    return [name for name in names if re.fullmatch(rf"{COMPACTIONS}/[0-9]{{6,}}/manifest\.json", name)]


def compaction_of(name: str) -> float:
    """The number of an object's compaction; infinity for a foreign object."""
    folder = name.split("/")[1]
    return int(folder) if folder.isdecimal() else math.inf


def folded_name(number: int, content: str | None = None) -> str:
    """The object with a row per folded shard; a published version has one, without a digest."""
    return f"{_compaction(number)}/folded{'' if content is None else f'-{content}'}.parquet"


def inventory_name(number: int, content: str) -> str:
    """The JSON object with the SHA-256 of every other object that the lake had when it was compacted."""
    return f"{_compaction(number)}/inventory-{content}.json"


def part_name(number: int, task: str, kind: str, content: str) -> str:
    """An object of a part. `kind`: records, responses, older or bits."""
    return f"{_compaction(number)}/task={safe_name(task)}/{kind}-{content}.{'bin' if kind == 'bits' else 'parquet'}"


def part_commit_name(number: int, task: str, content: str) -> str:
    """The object that commits a part, before its compaction is committed."""
    return f"{_compaction(number)}/task={safe_name(task)}/part-{content}.json"


def lists_shards(name: str) -> bool:
    """Whether an object is a manifest, or the list of a compaction's shards."""
    return bool(manifest_names([name])) or (is_compacted(name) and _stem(name).startswith("folded-"))


def is_in_compaction(name: object) -> bool:
    """Whether a value can name an object of a compaction: manifests of a foreign lake may hold any."""
    return isinstance(name, str) and name.isprintable() and _IN_COMPACTION.fullmatch(name) is not None


def is_part_commit(name: str) -> bool:
    return is_compacted(name) and _stem(name).startswith("part-")


def is_inventory(name: str) -> bool:
    return is_compacted(name) and _stem(name).startswith("inventory-")


def is_bits(name: str) -> bool:
    return is_compacted(name) and _stem(name).startswith("bits-")


_IN_COMPACTION = re.compile(rf"{COMPACTIONS}/[0-9]{{6,}}(?:/(?!\.)[^/\\]+){{1,2}}")


def _compaction(number: int) -> str:
    return f"{COMPACTIONS}/{number:06d}"


# ---- the lake as a whole


#: Folder with the marks of programs of a newer schema version than the one that began the lake.
MARKS = f"{SHARDS}/schema"


def mark_name(version: int) -> str:
    """The mark of a schema version, which makes older programs refuse the lake: schema files are never rewritten."""
    return f"{MARKS}/schema-{version:06d}.parquet"


def marked_version(name: str) -> int | None:
    match = re.fullmatch(rf"{MARKS}/schema-([0-9]+)\.parquet", name)
    return int(match[1]) if match else None


def probe_name(token: str) -> str:
    """An object that is created to test the store, and deleted."""
    return f"probe-{token}"


def is_probe(name: str) -> bool:
    return name.startswith("probe-")


def set_aside_name(name: str, content: str) -> str:
    """The place of a damaged object."""
    return f"{DAMAGED}/{name}-{content}"


def set_aside_of(name: str) -> str:
    """The name under which a damaged object was once written."""
    return name.removeprefix(f"{DAMAGED}/").rpartition("-")[0]


def request_name(file: str) -> str:
    return f"{REQUESTS}/{file}"


def is_request(name: str) -> bool:
    return name.startswith(f"{REQUESTS}/") and name.endswith(".npz")


def is_object(name: str) -> bool:
    """Whether a name is that of an object that a program of this project reads, of any table."""
    if name in _TABLE_OF_SCHEMA_FILE or marked_version(name) is not None or is_request(name):
        return True
    table = name.split("/")[0]
    if is_compacted(name):
        return compaction_of(name) < math.inf
    return table in GLOBS and is_of_table(table, name)


_FOLDERS = "|".join(sorted({table.split("/")[0] for table in TABLES}))
_PARQUET = re.compile(rf"(?:{_FOLDERS})(?:/(?!\.)[^/\n]+){{1,3}}(?<!schema)\.parquet")
_IN_A_TEXT = re.compile(rf"(?:{_FOLDERS})/[^\"'\n]*?\.parquet")


def may_be_damaged(name: str) -> bool:
    """Whether `name` can be a Parquet object with rows. The failures of a foreign lake may hold any text."""
    return _PARQUET.fullmatch(name) is not None


def names_in(message: str) -> set[str]:
    """The objects in a reader's error message."""
    return set(_IN_A_TEXT.findall(message))


# ---- a published version: a lake of one compaction, and files beside it

#: It names every other file, and is written last. A file that it does not name is not part of the version.
PUBLISHED_MANIFEST = "manifest.json"
#: The manifests of all published versions have this word: it stays.
PUBLISHED_KIND = "routerlake snapshot"
#: The digest of the content, while it is being published.
PUBLISHING = "claim.json"
#: Published versions and their users have this word: it stays.
DATABASE = "snapshot.duckdb"


def pool_name(name: str) -> str:
    """The object of a named pool in a published version."""
    return f"{POOLS}/{name}.yaml"


def pools_of(names: Iterable[str]) -> list[str]:
    """The names of the pools whose objects are among `names`."""
    return [match[1] for name in names if (match := re.fullmatch(rf"{POOLS}/([A-Za-z0-9][A-Za-z0-9._-]*)\.yaml", name))]


def published_name(table: str) -> str:
    """The only object of a table that is written whole."""
    return f"{table}/all.parquet"


def published_files(table: str) -> str:
    """The pattern of a table's objects in a published version."""
    if table.startswith(f"{COMPACTIONS}/"):
        return f"{COMPACTIONS}/*/task=*/{table.split('/')[1]}-*.parquet"
    return GLOBS[table].replace("/*/", "/task=*/") if "/*/" in GLOBS[table] else published_name(table)


#: The pattern of these files.
MATRIX_FILES = f"{MATRIX}/task=*/*.parquet"


def matrix_name(task: str) -> str:
    """The file with the matrix of one task of a published version."""
    return f"{MATRIX}/task={safe_name(task)}/matrix.parquet"


def is_matrix(name: str) -> bool:
    """Whether `name` may be a file with the matrix of a task."""
    return re.fullmatch(rf"{MATRIX}/task=[A-Za-z0-9._-]+/matrix\.parquet", name) is not None


def packed_name(table: str) -> str:
    return f"{PACKED}/{table}.parquet"


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].removesuffix(".parquet")
