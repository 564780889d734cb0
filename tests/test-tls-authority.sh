#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# The authority's certificate vanishes while the server is connected.  When the
# connection is lost after that, it is not made again without knowing to whom.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires certtool gnutls-bin
set -x

authority pki
certificate pki/server localhost pki
authority rogue
certificate rogue/server localhost rogue
mkdir ca
cp pki/ca-cert.pem ca

# restart_with DIRECTORY: another server at the same address, with this
# certificate.
restart_with ()
{
  remote_command[c]=$(printf '%q ' nbdkit --tls=require \
    --tls-certificates="$tmp/$1" --filter=log file "$tmp/c.img" \
    logfile="$tmp/$1.requests")
  restart_remote c
}

connections ()
{
  grep -c ' Connect ' "$1.requests" || true
}

make_regions 4M a.img c.img
start_tcp_remote 127.0.0.1 c nbdkit --tls=require \
                 --tls-certificates="$tmp/pki" file "$tmp/c.img"
remote_uri[c]="nbds://localhost:$(cat c.port)/?tls-certificates=$tmp/ca"
start_dmio timeout=2 "${remote_uri[c]}" a.img
client "write 0 65536 0x41" flush
rm ca/ca-cert.pem
# What is connected stays so.
client "write 0 65536 0x42" "read 0 65536 0x42" flush

# Somebody else, or the right one: neither without the certificate.
for who in rogue pki; do
  kill_remote c
  wait_for eval '[ "$(lost c)" -eq 1 ]'
  restart_with $who
  sleep 1.5
  client "read 0 65536 0x42"
  [ "$(back c)" -eq 0 ]
  [ "$(connections $who)" -eq 0 ]
done

# With it: the right one.
kill_remote c
cp pki/ca-cert.pem ca
restart_with rogue
sleep 1.5
[ "$(back c)" -eq 0 ]
[ "$(connections rogue)" -eq 0 ]
kill_remote c
restart_with pki
wait_for eval '[ "$(back c)" -eq 1 ]'
client "write 0 65536 0x43" "read 0 65536 0x43" flush
stop_server_within 2
holds c.img 0 65536 0x43
