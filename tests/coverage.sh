#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

# Which lines of lib/ and plugin/ the tests reach: builds with gcov in a
# temporary directory, runs every test there, prints gcovr's table.
# Needs gcovr.

set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files -z --cached --others --exclude-standard |
  xargs -0 cp --parents -t "$work"
cd "$work"

autoreconf -fi >coverage.log 2>&1
./configure CFLAGS='-g -O0 --coverage -fprofile-update=atomic' \
            >>coverage.log 2>&1
make -j"$(nproc)" >>coverage.log 2>&1
make -k -j"$(nproc)" check >>coverage.log 2>&1 || tail -n 30 coverage.log
gcovr --filter 'lib/' --filter 'plugin/' "$@"
