#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

# The long run of the simulator, by hand:
#
#   tests/sim-long.sh [HISTORIES [FIRST-SEED [JOBS]]]
#
# A million histories from a fresh seed on all processors, unless something
# else is said.  Each finding is a line with the seed that repeats it:
#
#   tests/test-sim --seed SEED --verbose

set -e -u -o pipefail

sim=$(dirname "$0")/test-sim
histories=${1:-1000000}
seed=${2:-$(($(date +%s) << 20))}
jobs=${3:-$(nproc)}
each=$(((histories + jobs - 1) / jobs))

echo "$((each * jobs)) histories from seed $seed on, $jobs at a time"
pids=()
for ((i = 0; i < jobs; i++)); do
    "$sim" --histories "$each" --seed $((seed + i * each)) &
    pids+=($!)
done
status=0
for pid in "${pids[@]}"; do
    wait "$pid" || status=1
done
exit $status
