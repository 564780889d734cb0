#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# What cannot be trusted is refused, with a message that names the region, and
# nothing is ever sent in clear instead: servers without TLS, with an expired
# certificate or one for another host or of an unknown authority, with another
# key or another user; and URIs that ask for no authentication.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
requires certtool gnutls-bin
requires psktool gnutls-bin
set -x

authority pki
authority other
certificate pki/server localhost pki
certificate pki/expired localhost pki 5
certificate pki/host storage.example.com pki
certificate other/server localhost other
for name in expired host; do
  mkdir $name
  cp pki/ca-cert.pem $name
  cp pki/$name-cert.pem $name/server-cert.pem
  cp pki/$name-key.pem $name/server-key.pem
done
mkdir ca other-ca empty
cp pki/ca-cert.pem ca
cp other/ca-cert.pem other-ca
psktool -u alice -p keys.psk
psktool -u alice -p wrong.psk
psktool -u bob -p bob.psk

make_regions 1M a.img

# server NAME OPTION...: with a log of connections.
server ()
{
  start_tcp_remote 127.0.0.1 "$1" nbdkit "${@:2}" --filter=log memory 1M \
                   logfile="$tmp/$1.requests"
  port=$(cat "$1.port")
}

# Servers without TLS, for both ways; they never see a client that reads or
# writes.
server plain --tls=off
refused 3 "nbds://localhost:$port" 'TLS' timeout=3 \
        a.img "nbds://localhost:$port/?tls-certificates=$tmp/ca"
refused 3 "nbds://alice@localhost:$port" 'TLS' timeout=3 \
        a.img "nbds://alice@localhost:$port/?tls-psk-file=$tmp/keys.psk"
start_remote plain-unix nbdkit --tls=off memory 1M
refused 3 'plain-unix\.sock' 'TLS' timeout=3 \
        "nbds+unix://alice@/?socket=$tmp/plain-unix.sock&tls-psk-file=$tmp/keys.psk"
! grep 'Connect' plain.requests || die "it connected without TLS"

# The server wants TLS, the URI does not.
server secure --tls=require --tls-certificates="$tmp/pki"
refused 3 "nbd://localhost:$port" 'TLS|nbds' timeout=3 "nbd://localhost:$port"
# URIs that would authenticate nobody.
refused 3 "nbds://localhost:$port" 'tls-certificates=.*tls-psk-file=' timeout=3 \
        "nbds://localhost:$port"
refused 3 "nbds://localhost:$port" 'tls-certificates=|ca-cert\.pem' timeout=3 \
        "nbds://localhost:$port/?tls-certificates="
refused 3 "nbds://localhost:$port" 'ca-cert\.pem' timeout=3 \
        "nbds://localhost:$port/?tls-certificates=$tmp/empty"
refused 3 "nbds://localhost:$port" 'No such file|cannot|ca-cert\.pem' timeout=3 \
        "nbds://localhost:$port/?tls-certificates=$tmp/none"
start_remote secure-unix nbdkit --tls=require --tls-certificates="$tmp/pki" \
             memory 1M
refused 3 'secure-unix\.sock' 'certificate.*tls-psk-file' timeout=3 \
        "nbds+unix:///?socket=$tmp/secure-unix.sock&tls-certificates=$tmp/ca"
# An authority that is not its.
refused 3 "nbds://localhost:$port" 'certificate' timeout=3 \
        "nbds://localhost:$port/?tls-certificates=$tmp/other-ca"
# The address instead of the name.
refused 3 "nbds://127.0.0.1:$port" 'certificate|host' timeout=3 \
        "nbds://127.0.0.1:$port/?tls-certificates=$tmp/ca"

server expired --tls=require --tls-certificates="$tmp/expired"
refused 3 "nbds://localhost:$port" 'certificate.*expired' timeout=3 \
        "nbds://localhost:$port/?tls-certificates=$tmp/ca"
server host --tls=require --tls-certificates="$tmp/host"
refused 3 "nbds://localhost:$port" 'certificate.*host' timeout=3 \
        "nbds://localhost:$port/?tls-certificates=$tmp/ca"
refused 3 "nbds://localhost:$port" "query 'tls-hostname'" timeout=3 \
        "nbds://localhost:$port/?tls-certificates=$tmp/ca&tls-hostname=storage.example.com"
server unknown --tls=require --tls-certificates="$tmp/other"
refused 3 "nbds://localhost:$port" 'certificate' timeout=3 \
        "nbds://localhost:$port/?tls-certificates=$tmp/ca"
# libnbd 1.22 knows queries that turn the verification off, or weaken it.
for query in tls-verify-peer=false tls-verify-peer=no tls-verify-peer=0 \
             tls%2Dverify-peer=false tls-hostname=localhost tls-hostname=; do
  for queries in "tls-certificates=$tmp/ca&$query" \
                 "$query;tls-certificates=$tmp/ca"; do
    refused 3 "nbds://localhost:$port" "query 'tls-(verify-peer|hostname)'" \
            timeout=3 "nbds://localhost:$port/?$queries"
  done
done
# The server asks for a certificate, which the directory has not.
server verifies --tls=require --tls-certificates="$tmp/pki" --tls-verify-peer
refused 3 "nbds://localhost:$port" '.' timeout=3 \
        "nbds://localhost:$port/?tls-certificates=$tmp/ca"

# Keys.
start_remote psk nbdkit --tls=require --tls-psk="$tmp/keys.psk" --filter=log \
             memory 1M logfile="$tmp/psk.requests"
psk="socket=$tmp/psk.sock&tls-psk-file=$tmp"
refused 3 'psk\.sock' 'TLS|key|psk|handshake' timeout=3 \
        "nbds+unix://alice@/?$psk/wrong.psk"
refused 3 'psk\.sock' 'TLS|key|psk|handshake' timeout=3 \
        "nbds+unix://bob@/?$psk/bob.psk"
refused 3 'psk\.sock' 'user|key|psk' timeout=3 \
        "nbds+unix://carol@/?$psk/keys.psk"
refused 3 'psk\.sock' 'No such file|psk' timeout=3 \
        "nbds+unix://alice@/?$psk/none.psk"
refused 3 'psk\.sock' 'TLS|nbds' timeout=3 "nbd+unix:///?socket=$tmp/psk.sock"
# Certificates for a server that has a key only.
start_tcp_remote 127.0.0.1 keys nbdkit --tls=require --tls-psk="$tmp/keys.psk" \
                 memory 1M
port=$(cat keys.port)
refused 3 "nbds://localhost:$port" 'TLS|certificate|handshake' timeout=3 \
        "nbds://localhost:$port/?tls-certificates=$tmp/ca"

# It says nothing.
start_remote stuck silent
refused 1 'stuck\.sock' 'within 1 second' timeout=1 \
        "nbds+unix://alice@/?socket=$tmp/stuck.sock&tls-psk-file=$tmp/keys.psk"

for name in secure expired host unknown verifies psk; do
  ! grep 'Connect' $name.requests || die "it connected to $name"
done

# The same without the mistakes.
port=$(cat secure.port)
start_dmio timeout=3 "nbds://localhost:$port/?tls-certificates=$tmp/ca" \
           "nbds+unix://alice@/?$psk/keys.psk"
client "write 0 4096 0x31" "read 0 4096 0x31" flush
stop_server_within 5
