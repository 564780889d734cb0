#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Which regions are named, and how: a leg keeps its number whatever the order
# and the path; one that the log does not know is refused, and becomes a
# leg by dmioctl add; one that is missing needs degraded=yes.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires_python_nbd
set -x

make_regions 4M a.img b.img c.img
start_mirror a.img b.img init=clean
client "write 0 4096 0x61" flush
stop_server

# In another order, and by other paths to the same files.
ln -s b.img link.img
mkdir directory
cd directory
start_mirror ../link.img ../directory/../a.img
[ "$(status '[.legs[].spec] | join(" ")')" = \
  "../directory/../a.img ../link.img" ]
[ "$(status .in_sync)" -eq 2 ]
client "read 0 4096 0x61" "write 0 4096 0x62" flush
stop_server
cd ..
same a.img b.img

# By a part of it: that is another region.
refused_mirror "'b\.img,sector=8' is not a leg.*dmioctl add" a.img \
               b.img,sector=8 degraded=yes

# A region that is no leg.
cp c.img c.orig
refused_mirror "'c\.img' is not a leg of this mirror.*a\.img.*b\.img.*dmioctl add" \
               a.img b.img c.img
[ ! -e c.img.dmlog ]
same c.img c.orig

# ... is added while the mirror is served.
start_mirror a.img b.img
cd directory
dmioctl add ../c.img > added.text
cd ..
grep -E '^region 2 ' directory/added.text
wait_in_sync
[ "$(status .in_sync)" -eq 3 ]
! dmioctl add c.img > again.text 2>&1 ||
  die "accepted: dmioctl add c.img"
grep 'is a leg already' again.text
client "write 65536 4096 0x63" flush
stop_server
same a.img b.img c.img

# From now on it has to be named, or missing on purpose.
refused_mirror 'c\.img.*in sync.*missing.*degraded=yes' a.img b.img
start_mirror c.img a.img b.img
[ "$(status .in_sync)" -eq 3 ]
[ -e c.img.dmlog ]
stop_server

# Missing: not there at all.
mkdir away
mv b.img away
refused_mirror 'b\.img.*No such file' a.img b.img c.img
refused_mirror 'b\.img.*in sync.*missing.*degraded=yes' a.img b.img c.img
start_mirror a.img b.img c.img degraded=yes
[ "$(state 1)" = missing ]
[ "$(status .degraded)" = true ]
logged 'region 1 \(b\.img\).*missing.*2 of 3 legs in sync'
client "write 131072 4096 0x64" flush
stop_server

# Now the log knows, so no word is needed any more.
start_mirror a.img b.img c.img
[ "$(state 1)" = missing ]
client "write 196608 4096 0x65" flush

# It comes back while the mirror is served, and is found.
mv away/b.img .
wait_in_sync
[ "$(status .in_sync)" -eq 3 ]
stop_server
same a.img b.img c.img

# Moved: another region, as far as the log knows, so both is said.
mv b.img moved.img
refused_mirror "'moved\.img' is not a leg" a.img moved.img c.img degraded=yes
start_mirror a.img c.img degraded=yes
dmioctl add moved.img
wait_for has_state 3 'in sync'
[ "$(state 1)" = missing ]
! dmioctl wait --timeout 0.3 ||
  die "accepted: dmioctl wait --timeout 0.3"
stop_server
mv moved.img b.img
rm b.img.dmlog
start_mirror a.img b.img c.img degraded=yes
wait_for has_state 1 'in sync'
[ "$(state 3)" = missing ]
stop_server
same a.img b.img c.img

# Nothing that is in sync is there.
mv a.img away
mv c.img away
start_mirror b.img degraded=yes
client "write 0 4096 0x66" flush
stop_server
mv b.img keep.img
mv away/*.img .
refused_mirror 'no region that is in sync is there' a.img c.img degraded=yes \
               log=a.img.dmlog log=b.img.dmlog log=c.img.dmlog
mv keep.img b.img
start_mirror a.img b.img c.img
wait_for has_state 0 'in sync'
wait_for has_state 2 'in sync'
stop_server
same a.img b.img c.img

# More than there may be in a quorum, and less.
refused_mirror 'quorum=4.*only 3' a.img b.img c.img quorum=4
start_mirror a.img b.img c.img quorum=3
[ "$(status .quorum)" -eq 3 ]
client "write 0 4096 0x67" flush
dmioctl fail 0
! client "write 0 4096 0x68" ||
  die "a write succeeded with fewer legs than the quorum"
client "read 4096 4096 0"
stop_server
