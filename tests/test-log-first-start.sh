#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# The first start of a mirror needs to be told what the regions hold; later ones
# must not be told.  A start that is refused leaves no file behind and
# changes none.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires_python_nbd
set -x

end_daemon ()
{
  [ ! -e "$tmp/pid" ] || kill -KILL "$(cat "$tmp/pid")"
}

# everything: what there is, with names, modes, contents and times.
everything ()
{
  find . -type f ! -name '*.log' ! -name '*.list' -printf '%p %m %s %T@\n' |
    sort
  find . -name '*.img*' -type f -exec sha256sum {} + | sort
}

# refused CAUSE ARGUMENT...: and nothing is changed.
refused ()
{
  everything > before.list
  refused_mirror "$@"
  everything > after.list
  diff before.list after.list
}

random_file a.img 1M
random_file b.img 1M
chmod 640 a.img
cp a.img a.orig
cp b.img b.orig

no_log='no log yet: say what the regions hold: init=clean .* init=sync'
refused "$no_log" a.img b.img
refused "$no_log" a.img b.img degraded=yes
refused "$no_log" a.img b.img log=new.dmlog
refused "$no_log" a.img b.img log=b.img.dmlog
refused 'missing\.img.*No such file' a.img missing.img init=sync degraded=yes
refused 'No such file.*another place' a.img b.img init=sync log=new.dmlog \
        log=missing/log

# init=sync copies the first to the second, and nothing to the first.
start_mirror a.img b.img init=sync
wait_in_sync
[ "$(status .chunk_size)" -eq 1048576 ]
[ "$(status '"\(.log.copies) \(.log.all)"')" = "2 2" ]
stop_server
same a.orig a.img b.img
[ "$(stat -c %a a.img.dmlog)" = 640 ]
[ "$(stat -c %a b.img.dmlog)" = 644 ]
[ "$(stat -c %s a.img.dmlog)" -eq "$(stat -c %s b.img.dmlog)" ]

# From now on it knows.
refused 'has a log already \(.*/a\.img\.dmlog, .*leave out init=' \
        a.img b.img init=sync
refused 'has a log already' a.img b.img init=clean
start_mirror a.img b.img
[ "$(status .in_sync)" -eq 2 ]
client "write 0 4096 0x61" flush
stop_server
refused 'has a log already' b.img a.img init=sync
same a.img b.img

# A new one, of the same regions, when the log was removed: init=clean is refused
# if a look at some blocks shows that they are not alike, and copies nothing.
unlike ()
{
  refused "init=clean: regions '$1' and '$2' are not alike: .*offset $3[,;]" \
          "${@:4}" init=clean
}

rm ./*.dmlog
cp b.orig b.img
unlike a.img b.img 0 a.img b.img
cp a.img b.img
cp a.img c.img
printf x | dd of=c.img bs=1 seek=524300 conv=notrunc status=none
unlike a.img c.img 524288 a.img b.img c.img
make_regions 64M thin.img blank.img
printf x | dd of=thin.img bs=1 seek=34603008 conv=notrunc status=none
unlike thin.img blank.img 34603008 thin.img blank.img
unlike blank.img thin.img 34603008 blank.img thin.img
unlike thin.img 'blank.img,sector=8,count=100000' 34603008 \
       thin.img blank.img,sector=8,count=100000
rm c.img thin.img blank.img
cp b.img b.orig
start_mirror a.img b.img init=clean chunk=64K
[ "$(status .in_sync)" -eq 2 ]
[ "$(status .chunk_size)" -eq 65536 ]
stop_server
same b.orig b.img

# log=none does not read what that log holds for out of sync, or for different.
start_mirror a.img b.img
dmioctl fail b.img
client "write 0 4096 0x63" flush
stop_server
refused "log=none: region 'b.img' is out of sync.*a.img.dmlog" a.img b.img \
        log=none
start_mirror a.img b.img
dmioctl add "$tmp/b.img"
wait_in_sync
stop_server
start_mirror a.img b.img log=none
stop_server
start_mirror a.img b.img
client "write 0 4096 0x64"
kill_server
refused "log=none: region 'a.img' may differ.*a.img.dmlog" a.img b.img log=none
start_mirror a.img b.img
wait_in_sync
stop_server

# The same if the log is elsewhere, where there is nothing but zeroes, and a part
# of a file that holds something else.
rm ./*.dmlog
truncate -s 16M zero.dmlog
random_file part.dmlog 16M
dd if=/dev/zero of=part.dmlog bs=512 seek=8 count=20000 conv=notrunc status=none
cp part.dmlog part.orig
start_mirror a.img b.img init=sync log=zero.dmlog log=part.dmlog,sector=8,count=20000 \
             log=new,,1.dmlog
wait_in_sync
[ "$(status .log.copies)" -eq 3 ]
stop_server
same a.img b.img
cmp -n 4096 part.dmlog part.orig
cmp -i $(( 20008 * 512 )) part.dmlog part.orig
[ -s new,1.dmlog ]
[ ! -e a.img.dmlog ]
refused 'has a log already \(new,,1\.dmlog' a.img b.img init=sync log=new,,1.dmlog
start_mirror a.img b.img log=part.dmlog,sector=8,count=20000 log=zero.dmlog
stop_server

# One region alone can have a log, too.
start_mirror b.img init=sync log=one.dmlog
client "write 0 4096 0x62" "read 0 4096 0x62" flush
stop_server

# In the background, by relative paths.
random_file c.img 1M
truncate -s 1M d.img
bounded "${nbdkit[@]}" -P "$tmp/pid" -U "$tmp/sock" "$DMIO_PLUGIN" ./c.img \
  ../"${tmp##*/}"/d.img init=sync control=./daemon.ctl < /dev/null
at_exit end_daemon
control=$tmp/daemon.ctl
wait_for eval '[ -s pid ]'
wait_in_sync
daemon=$(cat pid)
kill "$daemon"
wait_for has_ended "$daemon"
rm pid
same c.img d.img
[ -e c.img.dmlog ]
[ -e d.img.dmlog ]
[ ! -e daemon.ctl ]
