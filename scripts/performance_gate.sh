#!/usr/bin/env bash
# Did HEAD make it slower than BASE? Both revisions are measured in this one job, on one machine.
#
#   performance_gate.sh BASE_DIR HEAD_DIR [flags of bench run, such as --workload imaging-train]
#
# Each folder is a checkout with an environment in .venv that has it installed (or set BASE_PYTHON and
# HEAD_PYTHON, absolute). Trials of the two take turns (bench ab). Prints a Markdown table and ends
# with the exit code of bench ab: 0 no regression, 1 regression, 2 wrong use, 3 undecided (with
# --strict; else 0), 4 nothing valid to compare. --fail-on, --strict, --blocks, --format and --out are
# those of bench ab; rows are left in HEAD_DIR/results unless --out says where.
set -euo pipefail
base=$(cd "$1" && pwd)
head=$(cd "$2" && pwd)
shift 2
base_python=${BASE_PYTHON:-$base/.venv/bin/python}
head_python=${HEAD_PYTHON:-$head/.venv/bin/python}

out=$head/results
own=(--format markdown)
flags=()
while (($#)); do
  case $1 in
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    --out=*) out=${1#*=}; shift ;;
    --fail-on | --blocks | --format) own+=("$1" "${@:2:1}"); shift $(($# > 1 ? 2 : 1)) ;;
    --fail-on=* | --blocks=* | --format=* | --strict) own+=("$1"); shift ;;
    *) flags+=("$1"); shift ;;
  esac
done
[[ $out == /* ]] || out=$PWD/$out

# In a checkout's folder Python would take that checkout's code for both revisions.
export PYTHONSAFEPATH=1
"$head_python" -m bench ab "${flags[*]@Q}" "${flags[*]@Q}" --python-a "$base_python" \
  --python-b "$head_python" --out "$out" "${own[@]}"
