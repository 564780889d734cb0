#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Remote regions that cannot be had, and wrong URIs and parameters, are
# refused before nbdkit goes into the background, within the timeout, by a
# message that names the region.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

make_regions 1M a.img
start_remote good nbdkit memory 1M
good=${remote_uri[good]}

# Nobody is there.
start_tcp_remote 127.0.0.1 gone nbdkit memory 1M
kill_remote gone
refused 2 "${remote_uri[gone]}" 'refused' a.img "${remote_uri[gone]}" timeout=2
refused 2 "$tmp/none\\.sock" 'No such file' \
        a.img "nbd+unix:///?socket=$tmp/none.sock" timeout=2
start_remote gone nbdkit memory 1M
kill_remote gone
refused 2 "$tmp/gone\\.sock" 'refused' "$good" "${remote_uri[gone]}" timeout=2
refused 2 'no-such-host\.invalid' 'resol|name|host|answer' \
        a.img nbd://no-such-host.invalid timeout=2
# Somebody is, and says nothing; or says something else.
start_remote silent silent
refused 1 "$tmp/silent\\.sock" 'within 1 second' \
        a.img "${remote_uri[silent]}" timeout=1
start_tcp_remote 127.0.0.1 silent silent
refused 2 "${remote_uri[silent]}" 'within 2 seconds' \
        a.img "${remote_uri[silent]}" timeout=2
refused 1 "${remote_uri[silent]}" 'within 1 second' \
        "${remote_uri[silent]}" "$good" timeout=1
"$python" -c '
import socket
s = socket.socket(socket.AF_UNIX)
s.bind("wrong.sock")
s.listen()
connections = []
while True:
    connections.append(s.accept()[0])
    connections[-1].send(b"220 mail.example.com ESMTP\r\n" * 100)' &
remote_pid[wrong]=$!
wait_for test -S wrong.sock
refused 2 'wrong\.sock' 'magic|server|protocol' a.img \
        'nbd+unix:///?socket=wrong.sock' timeout=2

# The export.
start_remote zero nbdkit memory 0
refused 2 "$tmp/zero\\.sock" 'size|empty' a.img "${remote_uri[zero]}"
mkdir exports
truncate -s 1M exports/one
start_remote dir nbdkit file dir="$tmp/exports"
refused 2 "two" '.' a.img "nbd+unix:///two?socket=$tmp/dir.sock"
start_remote odd nbdkit memory 100000
refused 2 "$tmp/odd\\.sock" 'multiple.*count=195' "${remote_uri[odd]}"
refused 2 "$tmp/good\\.sock,sector=2048" '2048 sectors' "$good,sector=2048"
refused 2 "$tmp/good\\.sock,count=2049" '2048 sectors' "$good,count=2049"

# Twice the same.
refused 2 "$tmp/good\\.sock" 'once|twice|same' "$good" a.img "$good"
refused 2 "$tmp/good\\.sock" 'once|twice|same' \
        "$good,count=8" "$good,sector=8"
refused 2 'good\.sock' 'once|twice|same' "$good" 'nbd+unix:///?socket=good.sock'
# In other words.
refused 2 'good\.sock' 'once|twice|same' "$good" \
        "nbd+unix://?socket=$tmp/good.sock"
refused 2 'good\.sock' 'once|twice|same' \
        "nbd+unix:///?tls-psk-file=k&socket=$tmp/good.sock" \
        "nbd+unix:///?socket=$tmp/good.sock&tls-psk-file=k"
start_tcp_remote 127.0.0.1 tcp nbdkit memory 1M
for same in / '/?tls-psk-file=k' '?tls-psk-file=k'; do
  refused 2 "${remote_uri[tcp]}" 'once|twice|same' "${remote_uri[tcp]}" \
          "${remote_uri[tcp]}$same"
  refused 2 "${remote_uri[tcp]}" 'once|twice|same' "${remote_uri[tcp]}$same" \
          "${remote_uri[tcp]}"
done

# URIs.
refused 2 'nbd\+tcp://localhost' 'nbd://|URI|scheme' nbd+tcp://localhost
refused 2 'nbd\+ssh://localhost' 'nbd://|URI|scheme' nbd+ssh://localhost
refused 2 'nbd:localhost' 'nbd://|URI' nbd:localhost:10809
refused 2 'nbd\+unix:///' 'socket' nbd+unix:///
refused 2 'nbd\+unix:///name' 'socket' 'nbd+unix:///name?sock=good.sock'
refused 2 'nbds://localhost/#' '%23' 'nbds://localhost/#?tls-psk-file=x'
# Queries that libnbd has, but that are not for everybody, and others.
for query in tls-verify-peer=false tls-hostname=other.example.com \
             tls-type=anon tls-username=alice TLS-Certificates=x \
             tls%2Dverify%2Dpeer=0 a=b Socket=x; do
  name=${query%%=*} name=${name//%2D/-}
  refused 2 "good\\.sock&.*query '$name'" 'known are.*socket=.*tls-psk-file=' \
          a.img "$good&$query"
  refused 2 "query '$name'" 'known are' "nbd://localhost/?$query"
done
for query in socket tls-certificates tls-psk-file; do
  refused 2 "query '$query'" 'twice' "nbd://localhost/?$query=a;$query=b"
done
refused 2 'nbd://localhost/\?socket' 'name=value' 'nbd://localhost/?socket'
refused 2 'nbd://localhost:x' '.' nbd://localhost:x timeout=2
refused 2 'nbd://localhost:99999' '.' nbd://localhost:99999 timeout=2
refused 2 'nbd://\[::1' '.' 'nbd://[::1' timeout=2

# Parameters.
refused 2 'good\.sock,direct=on' 'direct' "$good,direct=on"
refused 2 'good\.sock,direct=off' 'direct' "$good,direct=off"
refused 2 'good\.sock,size=1' 'unknown.*sector=N' "$good,size=1"
for value in 0 -1 abc '' 1.5 1s 0x10 ' 1' 4294967296 99999999999999999999; do
  refused 2 'timeout' 'second|number' "$good" "timeout=$value"
done
for value in '' fast balanced FIRST; do
  refused 2 'read=' 'balance.*first|first.*balance' "$good" "read=$value"
done

# Without the mistakes all is well.
start_dmio a.img "$good" "nbd+unix:///one?socket=$tmp/dir.sock" \
           "${remote_uri[odd]},count=195,write-mostly" timeout=1 read=balance
client "write 0 4096 0x31" "read 0 4096 0x31" flush
stop_server_within 3
