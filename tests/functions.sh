# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# What the shell tests share.  A test begins with
#
#   . "$(dirname "$0")/functions.sh"
#
# and is then in a private temporary directory, $tmp, which goes away when it
# ends, with all servers it started.  Programs built for the tests are in
# $builddir, the directory in which it was started, files of the source in
# $srcdir.
#
# DMIO_PLUGIN: the plugin to test, else the one of the build tree.
# DMIO_PRELOAD: the runtime of the sanitizer it was built with, as nbdkit is not
#   built with it.  What the sanitizer finds makes the test fail.

set -e -u -o pipefail

srcdir=$(cd "$(dirname "$0")" && pwd)
# shellcheck disable=SC2034
builddir=$PWD
DMIO_PLUGIN=$(realpath -m "${DMIO_PLUGIN:-../plugin/.libs/nbdkit-dmio-plugin.so}")
DMIO_PRELOAD=${DMIO_PRELOAD:-}
export LC_ALL=C TZ=UTC
PATH=$PATH:/usr/sbin:/sbin
unset LISTEN_FDS LISTEN_PID

#-----------------------------------------------------------------------
# What a test needs

skip ()
{
  echo "$0: skipped: $*" >&2
  exit 77
}

die ()
{
  echo "$0: $*" >&2
  exit 1
}

# requires PROGRAM PACKAGE
requires ()
{
  command -v "$1" > /dev/null || skip "$1 not found, install $2"
}

# Debian's Python, which sees python3-libnbd; others on PATH may not.
requires_python_nbd ()
{
  python=/usr/bin/python3
  $python -c 'import nbd' || skip "no libnbd for $python, install python3-libnbd"
}

is_root ()
{
  [ "$(id -u)" -eq 0 ]
}

# bounded COMMAND...: ends it if it hangs.
bounded ()
{
  timeout -k 5 "${DMIO_TIMEOUT:-180}" "$@"
}

# wait_for COMMAND...: until the command succeeds.  How long that takes is not
# tested by it: a machine may be slow.
patience=120
wait_for ()
{
  local - end=$(( SECONDS + patience ))
  set +x
  until "$@"; do
    [ "$SECONDS" -le "$end" ] || return 1
    sleep 0.05
  done
}

#-----------------------------------------------------------------------
# The end

servers=()

# at_exit COMMAND: before the temporary directory is removed, last one first.
exit_commands=()
at_exit ()
{
  exit_commands=("$1" "${exit_commands[@]}")
}

# Leaks found at exit are no findings if nbdkit itself allocated the memory: it
# does not close connections that end while it ends.  Nor is what such memory
# points to: what filters and the plugin have for that connection.
no_sanitizer_findings ()
{
  local file
  for file in "$tmp"/sanitizer.*; do
    [ ! -e "$file" ] || awk -v RS= '
      /LeakSanitizer: detected memory leaks$/ { next }
      /leak of/ && /\n *#1 0x[0-9a-f]+ [^\n]*[(\/]nbdkit\+0x/ { of_nbdkit = 1; next }
      /^Indirect leak of/ && of_nbdkit { next }
      /^SUMMARY: AddressSanitizer: [0-9]+ byte\(s\) leaked/ { next }
      { print; found = 1 }
      END { exit found }' "$file" >&2 || return 1
  done
}

finish ()
{
  local status=$? pid log command
  set +e +x
  trap '' HUP INT TERM
  cd /
  if [ "$status" -eq 0 ] && [ ${#servers[@]} -gt 0 ]; then
    echo "$0: servers were not stopped: ${servers[*]}" >&2
    status=1
  fi
  for pid in "${servers[@]}"; do
    kill -KILL "$pid"
    wait "$pid"
  done 2> /dev/null
  for command in "${exit_commands[@]}"; do
    eval "$command"
  done
  if [ "$status" -eq 0 ] && ! no_sanitizer_findings; then
    status=1
  fi
  if [ "$status" -ne 0 ] && [ "$status" -ne 77 ]; then
    for log in "$tmp"/*.log "$tmp"/sanitizer.*; do
      [ -e "$log" ] || continue
      echo "=== ${log##*/}"
      tail -n 60 "$log"
    done >&2
  fi
  rm -rf -- "$tmp"
  exit "$status"
}

tmp=$(mktemp -d "${TMPDIR:-/tmp}/dmio.XXXXXX")
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$tmp"

#-----------------------------------------------------------------------
# Servers

nbdkit=(nbdkit)
no_aslr=()
if [ -n "$DMIO_PRELOAD" ]; then
  export ASAN_OPTIONS="log_path=$tmp/sanitizer:${ASAN_OPTIONS:-}"
  export UBSAN_OPTIONS="log_path=$tmp/sanitizer:print_stacktrace=1:${UBSAN_OPTIONS:-}"
  export LSAN_OPTIONS="exitcode=0:${LSAN_OPTIONS:-}"
  export TSAN_OPTIONS="log_path=$tmp/sanitizer:${TSAN_OPTIONS:-}"
  # ThreadSanitizer cannot cope with all random layouts of memory.
  case $DMIO_PRELOAD in
    *tsan*) no_aslr=(setarch "$(uname -m)" -R) ;;
  esac
  # A sanitizer starts when a library's constructor first calls malloc.  In
  # nbdkit that is in newlocale, with the C library's lock on the locale held. It
  # looks for swift_demangle and has the error translated, which breaks that
  # lock, and after a strerror exit hangs.  So let it find one.
  echo 'char *swift_demangle (void) { return 0; }' |
    ${CC:-gcc} -shared -fPIC -x c -o "$tmp/found.so" -
  DMIO_PRELOAD=$DMIO_PRELOAD:$tmp/found.so
  nbdkit=("${no_aslr[@]}" env "LD_PRELOAD=$DMIO_PRELOAD" nbdkit)
fi

requires nbdkit nbdkit
requires nbdinfo libnbd-bin
[ -e "$DMIO_PLUGIN" ] || die "no plugin at $DMIO_PLUGIN, build it first"

# A command that starts the server, such as (prlimit --fsize=1000).  It has to
# end in exec.
launcher=()

is_listening ()
{
  ! has_ended "$server_pid" || return 0
  [ -S "$server_socket" ] && nbdinfo --can connect "$uri" > /dev/null 2>&1
}

# start_nbdkit ARGUMENT...: starts a server, waits until it answers and sets
# server_pid, server_socket, server_log and uri.
#
# start_dmio ARGUMENT...: the same with the plugin, without a log.
start_nbdkit ()
{
  local n=$(( ${server_number:=0} + 1 ))
  server_number=$n
  server_socket=$tmp/server$n.sock
  server_log=$tmp/server$n.log
  uri="nbd+unix:///?socket=$server_socket"
  "${launcher[@]}" "${nbdkit[@]}" -f --exit-with-parent -U "$server_socket" \
    "$@" < /dev/null > "$server_log" 2>&1 &
  server_pid=$!
  servers+=("$server_pid")
  wait_for is_listening
  ! has_ended "$server_pid" || die "the server did not start"
}

start_dmio ()
{
  start_nbdkit "$DMIO_PLUGIN" log=none "$@"
}

forget_server ()
{
  local pid others=()
  for pid in "${servers[@]}"; do
    [ "$pid" = "$1" ] || others+=("$pid")
  done
  servers=("${others[@]}")
}

has_ended ()
{
  ! kill -0 "$1" 2> /dev/null
}

# ask_to_end PID: by SIGTERM.  ThreadSanitizer delays a signal until the thread
# that has it calls a function that it knows; if that thread is just ending, as
# one of a client that has gone, the signal is lost.  So it gets others.
ask_to_end ()
{
  kill "$1"
  case $DMIO_PRELOAD in
    *tsan*)
      for _ in {1..50}; do
        sleep 0.1
        kill "$1" 2> /dev/null || break
      done ;;
  esac
}

# stop_servers PID...: asks each server to end; it must, without an error and
# without findings.  No client may be connected.
stop_servers ()
{
  local pid
  for pid; do
    ask_to_end "$pid"
    wait_for has_ended "$pid" || die "the server does not end"
    forget_server "$pid"
    wait "$pid" || die "the server ended with status $?"
  done
  no_sanitizer_findings
}

# The last one.
stop_server ()
{
  stop_servers "$server_pid"
}

# kill_server: as at a crash.
kill_server ()
{
  kill -KILL "$server_pid" 2> /dev/null || true   # it may have crashed already
  forget_server "$server_pid"
  wait "$server_pid" || true
}

#-----------------------------------------------------------------------
# Data

# make_regions SIZE FILE...: files of that size, all hole.
make_regions ()
{
  local size=$1
  shift
  rm -f -- "$@"
  truncate -s "$size" -- "$@"
}

# same FILE...: all have the same bytes.
same ()
{
  local first=$1 file
  shift
  for file; do
    cmp -- "$first" "$file"
  done
}

# random_file FILE BYTES: a file that compresses badly and has no holes.
random_file ()
{
  rm -f -- "$1"
  head -c "$2" /dev/urandom > "$1"
}

# client REQUEST...: see client.py.
client ()
{
  bounded "$python" "$srcdir/client.py" "$uri" "$@"
}

# holds FILE OFFSET LENGTH BYTE: the file has nothing but that byte there.
holds ()
{
  cmp -n "$3" -i "$2:0" -- "$1" \
    <(head -c "$3" /dev/zero | tr '\0' "\\$(printf %03o "$4")")
}

# logged REGEXP, not_logged REGEXP: by the last server.
logged ()
{
  grep -E -- "$1" "$server_log"
}

not_logged ()
{
  ! grep -E -- "$1" "$server_log"
}
