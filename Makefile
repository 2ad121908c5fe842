# routerlake: everything a person does in a checkout. `make` alone lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Without bytecode each of many processes compiles all tests anew: 43 CPU-seconds in place of 15.
export PYTHONDONTWRITEBYTECODE :=

python := .venv/bin/python
demo_lake := demo-lake
demo_site := demo-site
SIZE ?= 20M
JOBS ?= 4
# Tests that share an engine or a cluster stay in one process: tests/conftest.py has the groups.
parallel := -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: help env s3 models demo test test-fast test-long lint format bench bench-parity bench-lake bench-verify bench-ingest bench-router bench-collection bench-fleet bench-trust bench-routers bench-endpoints bench-judge bench-forecast bench-site sbom verify clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: .venv/.stamp ## build .venv from lock-cpu.txt (3.5 GB; a minute with uv, a few with pip), again only when that changed

.venv/.stamp: lock-cpu.txt pyproject.toml infra/env.sh
	@bash infra/env.sh

s3: env ## run an S3 server on 127.0.0.1 for development, its data in .cache/s3, until Ctrl-C
	@$(python) -m tests.helpers.object_store .cache/s3

models: env ## fetch and convert the demo's two small real models into .cache/models (0.9 GB)
	@$(python) infra/demo_models.py

demo: env models ## collect four real tasks for the two models, show the matrix, make its site; offline after `models`
	$(python) pipelines/collect.py --config pipelines/configs/demo.yaml
	@[ -n "$$(find $(demo_lake)/prices -name '*.parquet' ! -name 'schema.parquet' -print -quit 2>/dev/null)" ] || \
	  $(python) pipelines/prices.py --lake $(demo_lake) --shipped open_models price_names gpus > /dev/null
	$(python) pipelines/matrix.py --lake $(demo_lake) --show
	@if [ -n "$$(find $(demo_lake)/shards $(demo_lake)/prices -newer $(demo_site)/index.html -print -quit 2>&1)" ]; then \
	  $(python) pipelines/publish.py site $(demo_lake) $(demo_site); \
	else echo "open $(demo_site)/index.html"; fi

test: env ## run the tests but the longest, in four processes of up to 5 GB each; JOBS=n for others
	$(python) -m pytest $(parallel)

test-fast: env ## run the half of the tests that need no engine, no Ray and little time: a minute
	$(python) -m pytest $(parallel) -m "not slow or fast"

test-long: env ## run every test with all examples, storms and kills; `make test` runs a few of each
	ROUTERLAKE_TESTS=long $(python) -m pytest $(parallel)

lint: env ## ruff check, ruff format --check, mypy --strict
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy

format: env ## let ruff rewrite what it can
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

bench: ## list the benchmarks: what each measures and how to start it
	@for script in tests/benchmarks/bench_*.py; do \
	  [ -e "$$script" ] || { echo "no benchmarks yet"; continue; }; \
	  printf '  %-44s %s\n' "$(python) $$script" "$$(sed -n '/"""/ { s/^[^"]*"""//; s/"""$$//; p; q; }' "$$script")"; \
	done

bench-parity: env models ## compare our verdicts with lm-eval's own, row by row
	$(python) tests/benchmarks/bench_parity.py

bench-lake: env ## the lake's sizes and speeds at 20M synthetic records, 100,000 open shards, exports, score and plot; SIZE=2M or 200M for others (40 minutes)
	short=0; $(python) -m tests.benchmarks.bench_lake --size $(SIZE) || short=1; \
	$(python) -m tests.benchmarks.bench_growing || short=1; \
	$(python) -m tests.benchmarks.bench_export --size $(SIZE) || short=1; exit $$short

bench-routers: env ## routers: a whole board, peers' figures, 8,500 models, simulated worlds (20 minutes)
	$(python) -m tests.benchmarks.bench_routers

bench-forecast: env ## forecasts: errors and bands of models held out; DATA=folder of records, else simulated worlds (15 minutes)
	$(python) -m tests.benchmarks.bench_forecast $(if $(DATA),--data $(DATA))

bench-verify: env ## reading a whole lake to verify it, against sha256sum and pyarrow; DAMAGES=n tries as many damages
	$(python) -m tests.benchmarks.bench_verify --damages $(or $(DAMAGES),0)

bench-ingest: env ## compare imports of a table of 10M rows and of lm-eval's files with DuckDB alone (5 minutes)
	$(python) -m tests.benchmarks.bench_ingest

bench-router: env ## the views of costs, oracle and cheapest correct model at 20M records; SIZE=2M or 200M for others
	$(python) -m tests.benchmarks.bench_router --size $(SIZE)

bench-collection: env models ## collecting against stock lm-eval with equal verdicts: requests, tokens, seconds
	short=0; $(python) -m tests.benchmarks.bench_collection || short=1; \
	$(python) -m tests.benchmarks.bench_swap || short=1; exit $$short

bench-fleet: env ## a fleet: plans of 102,000 cells and of a million, the names of ten billion records, 1, 2 and 4 raylets, a storm of 100 kills; KILLS=n (half an hour)
	short=0; $(python) -m tests.benchmarks.bench_fleet || short=1; \
	$(python) -m tests.benchmarks.bench_far || short=1; \
	$(python) -m tests.benchmarks.bench_raylets || short=1; \
	$(python) -m tests.benchmarks.bench_spreading || short=1; \
	$(python) -m tests.benchmarks.bench_storm --kills $(or $(KILLS),100) || short=1; exit $$short

sbom: env ## write sbom.json, every installed package with version and licence, as CycloneDX
	$(python) infra/sbom.py > sbom.json

bench-endpoints: env ## endpoints: a served model's verdicts, faults, kills, speed, budgets of thinking; ITEMS=n, MODELS=folders (30 minutes)
	ITEMS=$(or $(ITEMS),10000) $(python) -m tests.benchmarks.bench_endpoints

bench-trust: env ## keys searched everywhere, versions tampered with, queries that act, equality, money on clusters (15 minutes)
	short=0; $(python) -m tests.benchmarks.bench_trust || short=1; \
	$(python) -m tests.benchmarks.bench_trust_equal || short=1; \
	$(python) -m tests.benchmarks.bench_trust_money || short=1; exit $$short

bench-judge: env ## the sandbox, checks of a lake, 1M answers judged again; LAKE=demo-lake checks that lake (10 minutes)
	$(python) -m tests.benchmarks.bench_judge $(if $(LAKE),--lake $(LAKE))

bench-site: env ## the site: 8,500 models × 12 tasks in Chromium, its database by records; SIZES="2M 20M" (5 minutes)
	$(python) -m tests.benchmarks.bench_site --sizes $(or $(SIZES),2M)

verify: env ## recompute published numbers from other people's records, where DATA names their folder
	$(python) -m tests.verify $(if $(DATA),--data $(DATA))

clean: ## remove .venv, caches, demo-lake and demo-site; .cache/models stays (rm -r .cache removes it)
	rm -rf .venv $(demo_lake) $(demo_site) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
