#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Regions over TLS: with certificates, with a certificate of our own that the
# server asks for, and with a pre-shared key.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires certtool gnutls-bin
requires psktool gnutls-bin
set -x

authority pki
certificate pki/server localhost pki
certificate pki/client somebody pki
mkdir ca
cp pki/ca-cert.pem ca
psktool -u alice -p keys.psk

make_regions 8M a.img b.img c.img d.img
start_tcp_remote 127.0.0.1 a nbdkit -t 1 --tls=require \
                 --tls-certificates="$tmp/pki" file "$tmp/a.img"
remote_uri[a]="nbds://localhost:$(cat a.port)/?tls-certificates=$tmp/ca"
start_tcp_remote 127.0.0.1 b nbdkit --tls=require --tls-certificates="$tmp/pki" \
                 --tls-verify-peer file "$tmp/b.img"
remote_uri[b]="nbds://localhost:$(cat b.port)/?tls-certificates=$tmp/pki"
start_remote c nbdkit --tls=require --tls-psk="$tmp/keys.psk" file "$tmp/c.img"
remote_uri[c]="nbds+unix://alice@/?socket=$tmp/c.sock&tls-psk-file=$tmp/keys.psk"
start_tcp_remote 127.0.0.1 d nbdkit --tls=on --tls-psk="$tmp/keys.psk" \
                 --filter=log file "$tmp/d.img" logfile="$tmp/d.requests"
remote_uri[d]="nbds://alice@127.0.0.1:$(cat d.port)/?tls-psk-file=$tmp/keys.psk"

start_dmio timeout=3 "${remote_uri[a]}" "${remote_uri[b]}" "${remote_uri[c]}" \
           "${remote_uri[d]}"
client "write 0 8388608 0x31" "read 0 8388608 0x31" "write,fua 4096 4096 0x32" \
       "zero 65536 65536" "trim 131072 65536" flush "status 0 8388608" \
       "read 4096 4096 0x32" "read 65536 65536"
bounded "${no_aslr[@]}" "$builddir/client-model" -t 2 "$uri"
not_logged failed
# No connection without TLS.
! grep 'Connect .*tls=0' d.requests || die "a connection without TLS"
grep -q 'Connect .*tls=1' d.requests
# And again when it was lost.
client flush
kill_remote a c d
wait_for eval '[ "$(lost a)$(lost c)$(lost d)" = 111 ]'
restart_remote a
restart_remote c
restart_remote d
wait_for eval '[ "$(back a)$(back c)$(back d)" = 111 ]'
client "write 0 65536 0x33" "read 0 65536 0x33" flush
! grep 'Connect .*tls=0' d.requests || die "a connection without TLS"
# A stopped server.
stop_remote a
client "write 0 4096 0x34 EIO" "read 0 4096 0x34"
continue_remote a
stop_server_within 5
same b.img c.img d.img

# Relative paths, in the background.
make_regions 8M c.img d.img
uri="nbd+unix:///?socket=$tmp/daemon.sock"
bounded "${nbdkit[@]}" -P "$tmp/daemon.pid" -U "$tmp/daemon.sock" \
  "$DMIO_PLUGIN" log=none timeout=5 \
  "nbds+unix://alice@/?socket=c.sock&tls-psk-file=keys.psk" < /dev/null
wait_for nbdinfo --can connect "$uri"
client "write 0 65536 0x35" flush
kill_remote c
client "read 0 65536 0 EIO"
restart_remote c
wait_for client "read 0 65536 0x35"
ask_to_end "$(cat daemon.pid)"
wait_for has_ended "$(cat daemon.pid)"
rm daemon.pid daemon.sock
