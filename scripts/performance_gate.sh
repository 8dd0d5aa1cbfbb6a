#!/usr/bin/env bash
# Did HEAD make it slower than BASE? Both revisions are measured in this one job, on one machine.
#
#   performance_gate.sh BASE_DIR HEAD_DIR [flags of bench run, such as --workload imaging-train]
#
# Each folder is a checkout with an environment in .venv that has it installed (or set BASE_PYTHON and
# HEAD_PYTHON, absolute). Trials of the two take turns (bench ab). Prints a Markdown table and ends
# with the exit code of bench ab: 0 no regression, 1 regression, 4 nothing valid to compare. Rows are
# left in HEAD_DIR/results.
set -euo pipefail
base=$(cd "$1" && pwd)
head=$(cd "$2" && pwd)
shift 2
base_python=${BASE_PYTHON:-$base/.venv/bin/python}
head_python=${HEAD_PYTHON:-$head/.venv/bin/python}

# In a checkout's folder Python would take that checkout's code for both revisions.
cd "$(mktemp -d)"
"$head_python" -m bench ab "${*@Q}" "${*@Q}" --python-a "$base_python" --python-b "$head_python" \
  --format markdown --out "$head/results"
