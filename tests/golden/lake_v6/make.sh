#!/usr/bin/env bash
# How this lake was made, once and for all: see README.md. It never runs again, for what it makes would not be version 6.
#   bash tests/golden/lake_v6/make.sh    in the root of a checkout of e367efa, with this folder's configs, tables and tasks
set -euo pipefail

here=tests/golden/lake_v6
lake=$here/lake
python=(.venv/bin/python -P)
if [ "$(git rev-parse --short=7 HEAD)" != e367efa ] || [ -e $lake ]; then
    echo "make.sh: only a checkout of e367efa makes this lake, and only once" >&2
    exit 2
fi

temporary=$(mktemp -d /tmp/old-XXXX)
export TMPDIR=$temporary ROUTERLAKE_CACHE=$temporary/cache HF_DATASETS_CACHE=$temporary/datasets PYTHONPATH=$PWD
export RAY_TMPDIR=$temporary RAY_USAGE_STATS_ENABLED=0 NO_COLOR=1
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=0123456789abcdef0123456789abcdef
trap 'rm -rf "$temporary"' EXIT

# $1: the exit code that is right; then a command.
expect() {
    local right=$1 code=0
    shift
    echo "== $*"
    "${python[@]}" "$@" || code=$?
    [ "$code" = "$right" ] || { echo "make.sh: exit code $code, not $right" >&2; exit 1; }
}
collect() { local right=$1 config=$2; shift 2; expect "$right" pipelines/collect.py --config "$here/configs/$config.yaml" "$@"; }

# Two runs, the second with the first one's cells and more; then a compaction alone holds them.
collect 0 first
collect 0 overlapping
expect 0 pipelines/compact.py --lake $lake --prune --keep-hours 0

# The same items once more, some of them: generation 1.
collect 0 first --limit 2 --generation 1

# What a catalog says of models of a hub, and a run on those that it chose.
"${python[@]}" - <<PYTHON
import huggingface_hub.constants

import pipelines.catalog
from tests.model_hub import llama, model_hub

with model_hub() as hub:
    huggingface_hub.constants.ENDPOINT, huggingface_hub.constants.HF_TOKEN_PATH = hub.endpoint, "/dev/null"
    pipelines.catalog.installed_vllm = lambda: None
    hub.add(llama("hub/large", hidden=20_000), llama("hub/small"), llama("hub/rare", downloads=3))
    hub.add(llama("hub/copy", seed="hub/small", created="2025-01-01"), llama("hub/gated", gated="auto"))
    assert pipelines.catalog.main(["--lake", "$lake", "--min-downloads", "1"]) == 0
PYTHON
collect 0 listed

# A table of others, with rows that cannot be trusted; then the same once it grew.
for table in riddles riddles_grown; do
    expect 1 pipelines/ingest.py --format table $here/tables/$table.csv --columns $here/tables/riddles.yaml \
        --name riddles --licence unknown --lake $lake
done

for table in prices gpu_prices price_names; do expect 0 pipelines/prices.py $here/tables/$table.csv --lake $lake; done

# All settings that are part of an identity; answers that are none.
collect 0 prompted
collect 0 unanswered

# A run that a budget ends, and the one that goes on from there.
collect 3 budget
collect 0 budget

# A damaged shard: recorded by a reader, removed by a compaction that folds all others, collected again.
damaged=$(grep -l stub-7b4c03f0229f117c -r $lake/shards | head -1)
truncate --size=1000 "$damaged"
expect 0 pipelines/matrix.py --lake $lake --sql "SELECT count(*) FROM records"
expect 0 pipelines/compact.py --lake $lake --prune
collect 0 budget

# After the last compaction: the items of a run with a larger limit, a higher generation, a cell of its own.
collect 0 one_more
collect 0 first --limit 1 --generation 2
ray=(.venv/bin/ray start --head --block --port=63791 --node-ip-address=127.0.0.1 --num-cpus=2 --num-gpus=1
    --include-dashboard=false --object-store-memory=100000000 --temp-dir="$temporary/ray")
"${ray[@]}" --resources='{"accelerator_type:L4": 1}' >"$temporary/ray.log" 2>&1 &
cluster=$!
until grep -q "block forever" "$temporary/ray.log"; do sleep 0.2; done
RAY_ADDRESS=127.0.0.1:63791 collect 0 placed
kill $cluster
wait $cluster || true

# Failures: a model that does not load, one that kills its engines, a task without items.
collect 1 failing

# A shard of a run that nothing is known of: its object is gone.
collect 0 lost
rm "$(grep -l stub-9b4b4436530ece8d -r $lake/runs)"

# What may be deleted at any time.
rm -r $lake/cache

expect 0 pipelines/publish.py --lake $lake --to $here/published --version 1.0.0-all --licence cc-by-4.0 --include all
expect 0 pipelines/publish.py verify $here/published/1.0.0-all
