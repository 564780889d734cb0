# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# What the tests of mirrors with a log share: the server, its state, crashes
# under load.  Sourced after functions.sh.

requires jq jq
DMIOCTL=$(realpath -m "${DMIOCTL:-$builddir/../plugin/dmioctl}")
[ -e "$DMIOCTL" ] || die "no dmioctl at $DMIOCTL, build it first"
control=$tmp/control.sock

# start_mirror ARGUMENT...: like start_nbdkit, with the plugin.
start_mirror ()
{
  start_nbdkit "$DMIO_PLUGIN" "control=$control" "$@"
}

dmioctl ()
{
  bounded "${no_aslr[@]}" "$DMIOCTL" -s "$control" "$@"
}

# wait_in_sync [SECONDS]: until nothing is left to recover or to reconcile.
wait_in_sync ()
{
  dmioctl wait --timeout "${1:-120}"
}

# status FILTER: of jq, on what the server says.
status ()
{
  dmioctl status --json | jq -r "$1"
}

# state LEG: its state.
state ()
{
  status ".legs[] | select(.number == $1) | .state"
}

# has_state LEG STATE...: is one of these.
has_state ()
{
  local now each
  now=$(state "$1")
  for each in "${@:2}"; do
    [ "$now" != "$each" ] || return 0
  done
  return 1
}

# refused_mirror CAUSE ARGUMENT...: the server does not start with these, and
# says so in a line with CAUSE (a regular expression).
refused_mirror ()
{
  local status=0
  timeout -k 5 60 "${launcher[@]}" "${nbdkit[@]}" -f --exit-with-parent \
    -U "$tmp/refused.sock" "$DMIO_PLUGIN" "${@:2}" \
    < /dev/null > refused.log 2>&1 || status=$?
  cat refused.log >&2
  [ $status -eq 1 ] || die "status $status and not 1"
  grep -Eiq -- "$1" refused.log || die "no line with '$1'"
}

# random_below NUMBER
random_below ()
{
  echo $(( (RANDOM << 15 | RANDOM) % $1 ))
}

# nap MSEC: for a time below that.
nap ()
{
  local msec
  msec=$(random_below "$1")
  sleep "$(( msec / 1000 )).$(printf %03d $(( msec % 1000 )))"
}

# allocated FILE: bytes.
allocated ()
{
  echo $(( $(stat -c '%b * %B' "$1") ))
}

# log_is_clean FILE: what a copy of the log says when nobody uses it.
log_is_clean ()
{
  bounded "${no_aslr[@]}" "$DMIOCTL" log "$1" > "$1.text"
  cat "$1.text" >&2
  grep -q '^0 bytes dirty:' "$1.text"
}

#-----------------------------------------------------------------------
# Load: see crash-load.c.  What the blocks may hold is in the file "blocks".

crash_load=("${no_aslr[@]}" "$builddir/crash-load")

# start_crash_load OPTION...: returns when it runs, or has ended.
#
# end_crash_load: waits for its end; it must have been content.
start_crash_load ()
{
  rm -f load.log
  "${crash_load[@]}" "$@" blocks "$uri" > load.log 2>&1 9>&- &
  load_pid=$!
  servers+=("$load_pid")
  wait_for eval "grep -sq running load.log || has_ended $load_pid"
}

end_crash_load ()
{
  local status=0
  wait "$load_pid" || status=$?
  forget_server "$load_pid"
  cat load.log
  [ $status -eq 0 ] || die "the load found a mistake"
}

# check_volume [OPTION...]: it holds what it may hold, and from now on nothing
# else.
check_volume ()
{
  bounded "${crash_load[@]}" --check "$@" blocks "$uri"
}

#-----------------------------------------------------------------------
# Remotes, after remotes.sh

# start_counted_remote NAME [FILTER ARGUMENT...]: nbdkit, which serves NAME.img
# and writes down what it is told to do, behind that filter, in NAME.ops.
start_counted_remote ()
{
  start_remote "$1" nbdkit -t 1 ${2:+"--filter=$2"} --filter=log \
               file "$tmp/$1.img" "logfile=$tmp/$1.ops" logappend=true "${@:3}"
}

# bytes_of NAME OPERATION: Write, Zero or Read; all that were asked for.
bytes_of ()
{
  # shellcheck disable=SC2016
  "$python" -c '
import re, sys
print(sum(int(count, 16) for count in re.findall(
    sys.argv[1] + r" id=\d+ .*count=(0x[0-9a-f]+) .*\.\.\.$",
    sys.stdin.read(), re.M)))' "$2" < "$1.ops"
}
