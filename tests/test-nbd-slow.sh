#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# One of three remotes is ten times slower than the timeout allows, or accepts
# connections and never answers.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=remotes.sh
. "$srcdir/remotes.sh"
set -x

# Changes.
start_three 2 nbdkit -t 1 --filter=delay file "$tmp/c.img" delay-write=10 \
            delay-zero=10 delay-trim=10
start_load 2 errors=EIO latency=3 regions=a.img,b.img
end_load
c_stays_away
logged "$(region c).*does not answer.* 1 second"
stop_server_within 3
same a.img b.img
kill_remote a b c

# Reads.  It comes back each time, and each time later.
start_three 0 nbdkit -t 1 --filter=delay file "$tmp/c.img" delay-read=10
start_load 5 kind=read latency=4
end_load
[ "$(lost c)" -ge 1 ]
[ "$(lost c)" -le 5 ]
[ "$(failed c)" -eq 0 ]
logged "$(region c).*does not answer.* 1 second"
stop_server_within 3
kill_remote a b c

# Flushes: the data of an acknowledged write may not be durable.
start_three 1 nbdkit eval get_size='echo 4M' can_multi_conn='exit 0' \
  pread="dd if=$tmp/c.img iflag=count_bytes,skip_bytes skip=\$4 count=\$3" \
  pwrite="dd of=$tmp/c.img conv=notrunc oflag=seek_bytes seek=\$4" \
  flush='sleep 10'
client "write 0 4096 0x47" "flush EIO" "read 0 4096 0x47" \
       "write 0 4096 0x48 EIO" "read 0 4096 0x48"
[ "$(failed c)" -eq 1 ]
stop_server_within 3
same a.img b.img
kill_remote a b c

# In its place, after a while, somebody who never says a word: for reads, the
# others do.
start_three 0 nbdkit file "$tmp/c.img"
start_load 2.5 kind=read latency=3
kill_remote c
start_remote c silent
end_load
[ "$(lost c)" -eq 1 ]
[ "$(back c)" -eq 0 ]
stop_server_within 3
# And then the right one again.
start_remote c nbdkit file "$tmp/c.img"
start_dmio_on_three 0
kill_remote c
start_remote c silent
sleep 2
kill_remote c
start_remote c nbdkit file "$tmp/c.img"
c_comes_back
stop_server_within 3
