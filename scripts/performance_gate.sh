#!/usr/bin/env bash
# Did HEAD make it slower than BASE? Both revisions are measured in this one job, on one machine.
#
#   performance_gate.sh BASE_DIR HEAD_DIR [flags of bench run, such as --workload imaging-train]
#
# Each folder is a checkout with an environment in .venv (or set BASE_PYTHON and HEAD_PYTHON). Prints
# a job summary (Markdown) and ends with the exit code of bench compare: 0 no regression, 1
# regression, 4 nothing valid to compare. A regression is measured again, the other way round,
# before it counts. Rows are left in BASE_DIR/results and HEAD_DIR/results.
set -euo pipefail
base=$(cd "$1" && pwd)
head=$(cd "$2" && pwd)
shift 2
base_python=${BASE_PYTHON:-$base/.venv/bin/python}
head_python=${HEAD_PYTHON:-$head/.venv/bin/python}

# Exit code 4 still leaves rows, which compare explains.
measure() { (cd "$1" && "$2" -m bench run "${@:3}" --profile rigorous --quiet) || [ $? -eq 4 ]; }
base_rows=$base/$(measure "$base" "$base_python" "$@")
head_rows=$head/$(measure "$head" "$head_python" "$@")

cd "$head"
"$head_python" -m bench compare "$base_rows" "$head_rows" --format github \
  --confirm --baseline-python "$base_python" --baseline-folder "$base"
