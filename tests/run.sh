#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause

# Everything on a fresh machine: install what is missing, build, and run
# every test, then those that do not need a virtual machine again with
# AddressSanitizer and UndefinedBehaviorSanitizer, and with
# ThreadSanitizer; 'make distcheck' as a normal user; and the tests on the other
# release of Debian that is supported (other-release.sh).
#
# 'run.sh without-vm' is what that does there: the quickstart, a plain build with
# the tests that need no virtual machine, and 'make distcheck'.
#
# It builds in a temporary directory from what git would commit and leaves
# the checkout alone.  The last line counts the tests.

set -euo pipefail
cd "$(dirname "$0")/.."
checkout=$PWD
. examples/packages.sh
. tests/source.sh

case ${1-everything} in
  everything) machines=("${packages_machines[@]}") ;;
  without-vm) machines=() ;;
  *) echo "usage: run.sh [without-vm]" >&2; exit 1 ;;
esac
install_packages "${packages_build[@]}" "${packages_clients[@]}" \
                 "${packages_tests[@]}" "${machines[@]}"

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 755 "$work"               # for the normal user of distcheck

mkdir "$work/source"
copy_source "$work/source"
cd "$work/source"
autoreconf -fi >"$work/autoreconf.log" 2>&1 || {
  cat "$work/autoreconf.log"
  exit 1
}

passed=0 failed=0 skipped=0

step () { printf '== %s (%s)\n' "$*" "$(date +%T)"; }

# Add up the summaries that automake has printed in a log.
add_up ()
{
  local log=$1 key sum

  for key in PASS FAIL XPASS ERROR SKIP; do
    sum=$(sed -n "s/^# $key: *\([0-9]*\)$/\1/p" "$log" |
            awk "{ n += \$1 } END { print n + 0 }")
    case $key in
      PASS) passed=$((passed + sum)) ;;
      SKIP) skipped=$((skipped + sum)) ;;
      *) failed=$((failed + sum)) ;;
    esac
  done
}

# One more test, which is the command that follows.
one_test ()
{
  local log=$1
  shift
  if "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
  else
    tail -n 60 "$log"
    failed=$((failed + 1))
  fi
}

# build_and_check NAME TARGET CONFIGURE-OPTION...: with that target of make.
build_and_check ()
{
  local name=$1 dir=$work/$1 target=$2
  shift 2
  step "$name: build"
  mkdir "$dir"
  cd "$dir"
  if ! { "$work/source/configure" --enable-gcc-warnings "$@" &&
         make -j"$(nproc)" all && make -j"$(nproc)" -C tests check TESTS=
       } >build.log 2>&1; then
    tail -n 60 build.log
    failed=$((failed + 1))
    return
  fi

  # Tests wait more than they work.
  step "$name: check"
  timeout -k 60 1500 make -k -j"$(( $(nproc) * 3 / 2 ))" -C tests "$target" >check.log 2>&1 ||
    { cat tests/test-suite.log || tail -n 60 check.log; }
  grep -E '^# (TOTAL|PASS|SKIP|FAIL|ERROR):' check.log | paste -sd' ' || {
    echo "no test was run"
    failed=$((failed + 1))
  }
  add_up check.log
}

# In a directory of its own, with a few tests, as the user nobody if this
# is root.
distcheck ()
{
  local as=()

  cp -r "$work/source" "$work/distcheck"
  cd "$work/distcheck"
  if [ "$(id -u)" -eq 0 ]; then
    chown -R nobody: .
    as=(setpriv --reuid nobody --regid nogroup --clear-groups)
  fi
  "${as[@]}" env HOME="$work/distcheck" sh -e -c '
    ./configure
    timeout -k 60 900 make distcheck \
      TESTS="test-request test-mirror test-dump-plugin.sh test-qemu-img.sh \
             test-install.sh"'
}

# In a directory of its own.
quickstart ()
{
  cp -r "$work/source" "$work/quickstart"
  "$work/quickstart/examples/quickstart.sh"
}

# What it says, but for its last line, which is added to the sum.
other_release ()
{
  local count=()

  step "$1"
  if [ "$(id -u)" -ne 0 ]; then
    echo "only root can make another release: not run"
    skipped=$((skipped + 1))
    return
  fi
  (cd "$checkout" && timeout -k 60 2400 tests/other-release.sh "$1") \
    >"$work/$1.log" 2>&1 || true
  sed '$d' "$work/$1.log" | sed 's/^/| /'
  read -r -a count <<<"$(sed -n '$s/[a-z,]//gp' "$work/$1.log")"
  if [[ ${count[0]-} =~ ^[0-9]+$ ]]; then
    passed=$((passed + count[0]))
    failed=$((failed + count[1]))
    skipped=$((skipped + ${count[2]-0}))
  else
    tail -n 1 "$work/$1.log"
    failed=$((failed + 1))
  fi
}

if [ "${1-}" = without-vm ]; then
  step "quickstart"
  one_test "$work/quickstart.log" quickstart
  build_and_check plain check-without-vm
else
  build_and_check plain check
  build_and_check address-and-undefined check \
                  --enable-sanitizer=address,undefined
  build_and_check thread check --enable-sanitizer=thread
fi
step "distcheck"
one_test "$work/distcheck.log" distcheck
if [ "${1-}" != without-vm ]; then
  . /etc/os-release
  case ${VERSION_CODENAME-} in
    bookworm) other_release trixie ;;
    *) other_release bookworm ;;
  esac
fi

step "end"
if [ "$skipped" -eq 0 ]; then
  echo "$passed passed, $failed failed"
else
  echo "$passed passed, $failed failed, $skipped skipped"
fi
# Somebody who is not root cannot run all; CI can.
[ -z "${CI:-}" ] || failed=$((failed + skipped))
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
