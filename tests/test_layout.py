"""The layout rules of the packages: which way imports go, who may touch which library, what files may be called."""

import ast
import functools
import graphlib
import importlib.metadata
import itertools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from collectors.engines import ENGINES
from collectors.lake import layout
from schemas.records import TABLES

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("schemas", "collectors", "pipelines")
SHEBANG = "#!/usr/bin/env -S python3 -P"

MUST_NOT_IMPORT = {
    "schemas": {"collectors", "pipelines", "ray", "torch", "lm_eval", "vllm", "transformers", "datasets", "s3fs"},
    "collectors": {"pipelines", "ray"},
}
MAY_ONLY_BE_IMPORTED_IN = {
    "ray": ("pipelines/fleet/*.py",),
    "vllm": ("collectors/engines/vllm.py", "collectors/engines/vllm_logprobs.py"),
    "lm_eval": ("collectors/harness/*.py",),
    "s3fs": ("collectors/lake/store.py",),
    # pinning.py reads model folders from any URI, and importers read files of others; neither is part of the lake
    "fsspec": ("collectors/lake/store.py", "collectors/models/pinning.py", "collectors/importers/files.py"),
    "obstore": ("collectors/lake/store.py",),
}


def modules(root: Path, package: str) -> list[Path]:
    return sorted((root / package).rglob("*.py"))


@functools.cache
def nodes_of(source: str) -> tuple[ast.AST, ...]:
    """All nodes of a module, each after the one around it. Most tests here read all modules."""
    return tuple(ast.walk(ast.parse(source)))


@functools.cache
def imported_names(source: str) -> frozenset[str]:
    """Top-level names a module imports anywhere in it: in functions, under TYPE_CHECKING and by import_module too."""
    return frozenset(_imported_names(source))


def _imported_names(source: str) -> Iterator[str]:
    for node in nodes_of(source):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and called(node).endswith(("import_module", "__import__")):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value.partition(".")[0]


def called(node: ast.Call) -> str:
    """The last name of what is called, empty where it is no name."""
    return str(getattr(node.func, "attr", None) or getattr(node.func, "id", ""))


def import_violations(root: Path) -> list[str]:
    found = []
    for package in PACKAGES:
        for path in modules(root, package):
            relative = path.relative_to(root)
            for name in sorted(imported_names(path.read_text(encoding="utf-8"))):
                allowed = MAY_ONLY_BE_IMPORTED_IN.get(name)
                if name in MUST_NOT_IMPORT.get(package, ()):
                    found.append(f"{relative}: {package} must not import {name}")
                elif allowed and not any(relative.match(pattern) for pattern in allowed):
                    found.append(f"{relative}: {name} belongs in {' or '.join(allowed)}")
    return found


def room_of(module: str) -> str:
    """The folder that a module lies in: formats/ are of the room around them, and schemas/ is one room."""
    package, *inner = module.split(".")
    is_room = package != "schemas" and inner and (ROOT / package / inner[0]).is_dir()
    return f"{package}.{inner[0]}" if is_room else package


def room_imports(root: Path) -> dict[str, set[str]]:
    """Room -> the rooms that it imports, anywhere in its modules."""
    rooms: dict[str, set[str]] = {}
    for path in itertools.chain(*(modules(root, package) for package in PACKAGES)):
        own = room_of(".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"))
        names = set()
        for node in nodes_of(path.read_text(encoding="utf-8")):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        ours = {room_of(name) for name in names if name.partition(".")[0] in PACKAGES}
        rooms.setdefault(own, set()).update(ours - {own})
    return rooms


#: Modules that may spell names of a lake's objects.
SPELLS_NAMES = ("collectors/lake/layout.py",)
#: Methods of a lake that take names.
OF_A_LAKE = {"names", "listing", "has", "read", "create", "create_table", "open_object", "remove"}
IN_USE = {table.partition("/")[0] for table in TABLES} | {
    layout.DAMAGED,
    layout.PACKED,
    layout.CLAIMS,
    layout.SPEND,
    "cache",
}
#: How a name begins, or what only such names hold. Names of tables, which views have too, are left out.
_SPELLED = re.compile(
    rf"/?({'|'.join(sorted(IN_USE.union(layout.RESERVED)))})/|.*(task=|probe-|quarantine-|/part-|/folded|all\.parquet|schema\.parquet)"
    rf"|({re.escape(layout.PUBLISHED_MANIFEST)}|{re.escape(layout.PUBLISHING)}|{re.escape(layout.DATABASE)})$"
)


def string_constants(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of the strings of a module but its docstrings; an f-string is one text, with {} for its values."""
    skipped: set[ast.AST] = set()
    for node in nodes_of(source):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(node.value)
        elif isinstance(node, ast.JoinedStr):
            skipped |= set(ast.walk(node))
            texts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield node.lineno, "".join(texts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield node.lineno, node.value


def name_violations(root: Path) -> list[str]:
    found = []
    for path in itertools.chain(*(modules(root, package) for package in ("collectors", "pipelines"))):
        relative = path.relative_to(root).as_posix()
        if relative in SPELLS_NAMES:
            continue
        source = path.read_text(encoding="utf-8")
        for line, text in string_constants(source):
            if text not in TABLES and " " not in text and _SPELLED.match(text):  # with a space it is a sentence
                found.append(f"{relative}:{line}: {text!r} spells an object of a lake")
        for node in nodes_of(source):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in OF_A_LAKE:
                first = node.args[0] if node.args else None
                if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value:
                    found.append(f"{relative}:{node.lineno}: {first.value!r} is given to a lake")
    return found


#: Where a text names an engine and another thing is meant: libraries and their versions, and what vLLM supports.
NAMES_OF_LIBRARIES = (
    "collectors/extras.py",
    "collectors/runs/plan.py",
    "collectors/harness/prepared.py",
    "collectors/models/hub_catalog.py",
    "schemas/records.py",
)


def engine_names(root: Path) -> list[str]:
    """Texts in code that are an engine's name or begin with one, outside collectors/engines/ and the config."""
    found = []
    for path in itertools.chain(*(modules(root, package) for package in PACKAGES)):
        relative = path.relative_to(root)
        if relative.match("collectors/engines/*.py") or str(relative) == "collectors/runs/config.py":
            continue
        for line, text in string_constants(path.read_text(encoding="utf-8")):
            is_name = text in ENGINES or any(re.search(rf"(^|')({name})(-|')", text) for name in ENGINES)
            if is_name and str(relative) not in NAMES_OF_LIBRARIES:
                found.append(f"{relative}:{line}: {text.strip()[:40]!r}")
    return found


def is_entry_script(path: Path) -> bool:
    guards = (node.test for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.If))
    return any(ast.unparse(guard) == "__name__ == '__main__'" for guard in guards)


def script_violations(root: Path) -> list[str]:
    found = []
    for path in sorted((root / "pipelines").glob("*.py")):
        if is_entry_script(path):
            name = path.relative_to(root)
            if path.read_text(encoding="utf-8").partition("\n")[0] != SHEBANG:
                found.append(f"{name}: the first line is not {SHEBANG}")
            if not os.access(path, os.X_OK):
                found.append(f"{name}: not executable, chmod +x")
    return found


def test_imports_in_packages_go_one_way() -> None:
    assert import_violations(ROOT) == []


def test_engine_names_stand_in_their_room_and_the_config_alone() -> None:
    """Other rooms ask for an engine's traits: a name would have to be added there for each new engine."""
    assert engine_names(ROOT) == []


def test_engine_names_planted_are_reported(tmp_path: Path) -> None:
    planted = {
        "collectors/engines/stub.py": "NAME = 'stub'\n",
        "collectors/runs/collector.py": "def f(name):\n    return name != 'stub'\n",
        "collectors/models/sizes.py": "QUERY = \"starts_with(revision, 'stub-')\"\nx = f'hf-{1}'\nuri = 'hf://a'\n",
    }
    for name, source in planted.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    assert [line.partition(": ")[0] for line in engine_names(tmp_path)] == [
        "collectors/models/sizes.py:1",
        "collectors/models/sizes.py:2",
        "collectors/runs/collector.py:2",
    ]


def test_imports_between_rooms_make_no_circle() -> None:
    graphlib.TopologicalSorter(room_imports(ROOT)).prepare()  # CycleError names the circle


def test_names_of_a_lakes_objects_are_spelled_in_one_module() -> None:
    assert name_violations(ROOT) == []


def test_name_rules_planted_violations_are_reported(tmp_path: Path) -> None:
    planted = """
'''A docstring may speak of runs/ and items/task=a/b.parquet.'''
def f(lake, run_id, stem):
    lake.names("failures")
    lake.names("")
    only = ["failures", "compact/records"]
    raise ValueError("no run in runs/ planned it", f"runs/{run_id}.parquet", f"{stem}/part-{run_id}.json")
"""
    (tmp_path / "collectors" / "lake").mkdir(parents=True)
    (tmp_path / "collectors" / "plan.py").write_text(planted)
    (tmp_path / "collectors" / "lake" / "layout.py").write_text("def run(i):\n    return f'runs/{i}.parquet'\n")
    assert name_violations(tmp_path) == [
        "collectors/plan.py:7: 'runs/{}.parquet' spells an object of a lake",
        "collectors/plan.py:7: '{}/part-{}.json' spells an object of a lake",
        "collectors/plan.py:4: 'failures' is given to a lake",
    ]


def test_reserved_names_are_no_folder_in_use() -> None:
    assert len(set(layout.RESERVED)) == len(layout.RESERVED)
    assert IN_USE.isdisjoint(layout.RESERVED)


def test_import_rules_planted_violations_are_reported(tmp_path: Path) -> None:
    planted = {
        "schemas/records.py": "def f():\n    import collectors.lake.store\n",
        "collectors/plan.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vllm.outputs import X\n",
        "collectors/harness/tasks.py": "import lm_eval.tasks\n",
        "pipelines/collect.py": "import importlib\nimportlib.import_module('ray.data')\nfrom . import ray\n",
    }
    for name, source in planted.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    assert import_violations(tmp_path) == [
        "schemas/records.py: schemas must not import collectors",
        "collectors/plan.py: vllm belongs in collectors/engines/vllm.py or collectors/engines/vllm_logprobs.py",
        "pipelines/collect.py: ray belongs in pipelines/fleet/*.py",
    ]


def test_module_routerlake_stands_on_collectors_and_nothing_stands_on_it() -> None:
    own = imported_names((ROOT / "routerlake.py").read_text(encoding="utf-8"))
    assert own.isdisjoint({"pipelines", "tests", *MAY_ONLY_BE_IMPORTED_IN})
    paths = itertools.chain(*(modules(ROOT, package) for package in PACKAGES))
    assert [path for path in paths if "routerlake" in imported_names(path.read_text(encoding="utf-8"))] == []


def test_imports_of_third_parties_are_declared_in_pyproject() -> None:
    """What only arrives with another library goes away with its next release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    owners = importlib.metadata.packages_distributions()
    paths = [ROOT / "routerlake.py", *itertools.chain(*(modules(ROOT, package) for package in PACKAGES))]
    sources = (path.read_text(encoding="utf-8") for path in paths)
    imported = set(itertools.chain(*map(imported_names, sources))) - set(PACKAGES) - sys.stdlib_module_names
    assert (
        sorted(name for name in imported if not {canonicalize_name(o) for o in owners.get(name, [])} & declared) == []
    )


def test_schemas_import_in_fresh_process_loads_no_heavy_library() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules(ROOT, "schemas")]
    heavy = MUST_NOT_IMPORT["schemas"]
    code = (
        f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\nprint({heavy} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


#: Libraries that take 0.04 to 5 seconds to import, and that a script loads when it has work for them.
SLOW_TO_IMPORT = (
    "boto3",
    "botocore",
    "datasets",
    "huggingface_hub",
    "jinja2",
    "lm_eval",
    "matplotlib",
    "pandas",
    "pyarrow.compute",
    "pydantic",
    "ray",
    "s3fs",
    "tiktoken",
    "torch",
    "transformers",
)


def test_scripts_start_without_libraries_that_are_slow_to_import() -> None:
    """One process imports them all in turn: the first with a list has loaded it."""
    scripts = sorted(path.stem for path in (ROOT / "pipelines").glob("*.py") if is_entry_script(path))
    code = (
        "import importlib, sys\nloaded = {}\n"
        f"for name in {scripts}:\n"
        "    importlib.import_module(f'pipelines.{name}')\n"
        f"    loaded[name] = [library for library in {SLOW_TO_IMPORT} if library in sys.modules]\n"
        "print(loaded)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == {name: [] for name in scripts}


def test_module_names_at_package_top_shadow_no_other_module() -> None:
    """A script's folder comes first on sys.path unless -P is given: pipelines/datasets.py would hide the library."""
    taken = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())
    ours = [path for package in PACKAGES for path in (ROOT / package).iterdir() if path.name != "__init__.py"]
    candidates = {p.stem: p for p in ours if p.suffix == ".py" or (p.is_dir() and any(p.glob("*.py")))}
    assert sorted(str(path.relative_to(ROOT)) for stem, path in candidates.items() if stem in taken) == []


def test_pipeline_entry_scripts_have_shebang_and_exec_bit() -> None:
    assert script_violations(ROOT) == []


def test_script_rules_planted_violations_are_reported(tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    guard = "if __name__ == '__main__':\n    pass\n"
    (tmp_path / "pipelines" / "bare.py").write_text(guard)
    (tmp_path / "pipelines" / "good.py").write_text(f"{SHEBANG}\n{guard}")
    (tmp_path / "pipelines" / "good.py").chmod(0o755)
    (tmp_path / "pipelines" / "library.py").write_text("x = 1\n")
    assert script_violations(tmp_path) == [
        f"pipelines/bare.py: the first line is not {SHEBANG}",
        "pipelines/bare.py: not executable, chmod +x",
    ]


def test_test_files_have_at_most_400_lines() -> None:
    files = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "tests" / "helpers").glob("*.py")]
    assert [str(file.relative_to(ROOT)) for file in files if len(file.read_text().splitlines()) > 400] == []
