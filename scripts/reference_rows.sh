#!/usr/bin/env bash
# Measures the reference rows of one machine: every real workload at base and large in bf16, eager
# and compiled. Run it by hand, on a machine that does nothing else, in an environment where `bench`
# is installed; then look at the rows and commit those that are to be kept.
#
#   scripts/reference_rows.sh                                     all of it, to results/reference
#   PROFILE=default BUDGET=30m scripts/reference_rows.sh          3 to 6 trials of each, 30 min a mode
#   DEVICE=cpu SIZES=tiny PROFILE=smoke MODES=eager OUT=/tmp/rows scripts/reference_rows.sh
#
# What can be set:
#   OUT        folder of the result files                         results/reference of this checkout
#   WORKLOADS  as --workload                                      the five real phases
#   SIZES      as --size, with commas                             base,large
#   DTYPE      as --dtype, with commas                            bf16
#   MODES      words out of: eager compiled                       eager compiled
#   PROFILE    as --profile                                       quick
#   BUDGET     time for each mode, as --budget; what does not     no limit
#              fit becomes a SKIPPED row
#   TIMEOUT    longest time for one trial, as --timeout           10m
#   DEVICE     as --device                                        the best there is
#   PYTHON     interpreter                                        python3
#
# Each mode is one run and leaves one result file with its two companions; `bench` prints how long
# each trial took and this script how long each run took. A configuration that fails is a row with
# its reason and does not stop the rest; the exit code is then that of the last run that had one.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=${OUT:-$root/results/reference}
python=${PYTHON:-python3}
workloads=${WORKLOADS:-imaging-train,imaging-infer,llm-train,llm-prefill,llm-decode}
read -ra modes <<<"${MODES:-eager compiled}"

flags=(--workload "$workloads" --size "${SIZES:-base,large}" --dtype "${DTYPE:-bf16}")
flags+=(--profile "${PROFILE:-quick}" --timeout "${TIMEOUT:-10m}" --out "$out")
[[ -n ${BUDGET:-} ]] && flags+=(--budget "$BUDGET")
[[ -n ${DEVICE:-} ]] && flags+=(--device "$DEVICE")

for mode in "${modes[@]}"; do
  if [[ $mode != eager && $mode != compiled ]]; then
    echo "reference_rows.sh: MODES has '$mode'; allowed are eager and compiled" >&2
    exit 2
  fi
done

mkdir -p "$out" || exit 2
cd "$root" || exit 2
worst=0
for mode in "${modes[@]}"; do
  mode_flags=()
  [[ $mode == compiled ]] && mode_flags=(--compile)
  echo "== $mode: bench run ${flags[*]} ${mode_flags[*]}"
  start_s=$SECONDS
  "$python" -m bench run "${flags[@]}" "${mode_flags[@]}"
  code=$?
  [[ $code != 0 ]] && worst=$code
  echo "== $mode took $((SECONDS - start_s)) s, exit code $code"
  [[ $code == 130 ]] && break
done
echo "== rows in $out, $SECONDS s in all"
exit "$worst"
