#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Files of any name: the status of their legs is a line each and valid JSON,
# which names them, no name forges a line in the log of the server, and dmioctl
# fails and adds them by their SPEC, by what status shows, and from
# other directories.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires_python_nbd
set -x

# ask METHOD LEG: the control socket, as a program would.
ask ()
{
  bounded "$python" - "$control" "$@" <<'PYTHON'
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect(sys.argv[1])
body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": sys.argv[2],
                   "params": {"leg": sys.argv[3]}}).encode()
s.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
f = s.makefile("rb")
length = 0
while (line := f.readline()) != b"\r\n":
    assert line != b""
    if line.lower().startswith(b"content-length:"):
        length = int(line.split(b":")[1])
answer = json.loads(f.read(length))
assert "result" in answer, answer
PYTHON
}

# fails COMMAND..., adds COMMAND...: so the first leg is.
fails ()
{
  "$@" > changed.text
  [ "$(state 0)" = failed ]
  client "write $(( ++writes * 4096 )) 4096 0x31" flush
}

adds ()
{
  "$@" > changed.text
  wait_in_sync 20
}

# serves FILE SPEC SHOWN: SPEC is the file's; in a status it is shown like that.
# FILE has no directory in it.
serves ()
{
  local file=$1 spec=$2 shown=$3 json
  mkdir names elsewhere
  cd names
  make_regions 1M "./$file" o.img
  writes=0
  start_mirror region="$spec" region=o.img init=clean

  dmioctl status > status.text
  grep -F "region 0   $shown " status.text
  [ "$(wc -l < status.text)" -eq 4 ]
  dmioctl status --json > status.json
  "$python" -c 'import json, sys; json.load(open(sys.argv[1], encoding="utf-8"))' \
            status.json
  json=$(jq -r '.legs[0].spec + "."' status.json)
  json=${json%.}

  fails dmioctl fail "$spec"
  adds dmioctl add "$shown"
  fails ask fail "$json"
  adds ask add "$json"
  cd ../elsewhere
  fails dmioctl fail "../names/$spec"
  adds dmioctl add -- "$spec"
  cd ../names

  # Each line of the server is one.
  ! grep -Ev '^nbdkit: ' "$server_log" || die "not a line of nbdkit"
  ! grep -P '[\x00-\x08\x0b-\x1f\x7f]' "$server_log" ||
    die "control characters in the log"
  stop_server
  start_mirror region=o.img region="$spec"
  stop_server
  same "./$file" o.img
  bounded "${no_aslr[@]}" "$DMIOCTL" log "./$file.dmlog" > log.text
  ! grep -Ev '^[a-z0-9]' log.text || die "not a line of dmioctl log"
  grep -F "/names/${shown#./}  in sync" log.text
  cd ..
  rm -r names elsewhere
}

serves 'a b,=%s"' 'a b,,=%s"' 'a b,,=%s"'
serves $'gr\xc3\xbc\xc3\x9fe' $'gr\xc3\xbc\xc3\x9fe' $'gr\xc3\xbc\xc3\x9fe'
serves $'latin\xfc' $'latin\xfc' 'latin\xfc'
serves $'two\nnbdkit: error: lines\a' $'two\nnbdkit: error: lines\a' \
       'two\x0anbdkit: error: lines\x07'
serves $'\x1f\\x41\\' $'\x1f\\x41\\' '\x1f\x5cx41\'
serves '-dash' '-dash' '-dash'
serves '--' './--' './--'

# What can be the number of a leg is one.
make_regions 1M 0 1
start_mirror region=1 region=0 init=clean
dmioctl fail 1
[ "$(status '.legs[] | select(.state == "failed") | .spec')" = 0 ]
dmioctl add 1
wait_in_sync 20
dmioctl fail ./1
[ "$(status '.legs[] | select(.state == "failed") | .spec')" = 1 ]
dmioctl add ./1
wait_in_sync 20

# A new one, of which a message forges no line either.
make_regions 1M $'new\xfc\n'
dmioctl add $'new\xfc\n'
wait_in_sync 20
[ "$(status '.legs | length')" -eq 3 ]
! timeout -k 5 60 "${no_aslr[@]}" "$DMIOCTL" -s "$control" \
  add $'missing\nfile' 2> error.text || die "added what is not there"
[ "$(wc -l < error.text)" -eq 1 ]
grep 'missing\\x0afile' error.text
stop_server
refused_mirror 'missing\\x0afile' region=1 region=0 \
               region=$'new\xfc\n' region=$'missing\nfile'
! grep -v '^nbdkit: ' refused.log || die "not a line of nbdkit"

# Whoever logs something in the plugin has to do it there.
! grep -l 'nbdkit_error (' "$srcdir"/../plugin/*.c | grep -v '/log\.c$' ||
  die "nbdkit_error is called"
