#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Files that are legs, or copies of the log, are deleted, moved away or replaced
# while they are served, as by a clean-up script, an editor, or rsync.  What is
# written to a file without a name is lost, so that is noticed: the leg fails, and
# what is at its path later is a new leg; a copy of the log is made anew.  (S4)

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
# shellcheck source=crash.sh
. "$srcdir/crash.sh"
requires_python_nbd
set -x

copies ()
{
  status '"\(.log.copies) of \(.log.all)"'
}

has_copies ()
{
  [ "$(copies)" = "$1" ]
}

# start FILE...: a new mirror of them, with some data.
start ()
{
  rm -f ./*.dmlog
  make_regions 4M "$@"
  start_mirror init=clean chunk=64K "$@"
  client "write 0 1048576 0x61" flush
}

# is_whole FILE...: all is in sync again, on the files that have the names now; also
# after a restart.
is_whole ()
{
  wait_in_sync
  wait_for has_copies "$# of $#"
  client "write 1048576 65536 0x62" "read 0 1048576 0x61" flush
  stop_server
  same "$@"
  holds "$1" 0 1048576 0x61
  start_mirror "$@"
  [ "$(status .in_sync)" -eq $# ]
  stop_server
}

for files in "a.img b.img" "a.img b.img c.img"; do
  read -r -a legs <<< "$files"

  # Deleted; the copy of the log beside it goes with it, and comes back with it.
  start "${legs[@]}"
  rm b.img
  wait_for has_state 1 failed
  logged 'region 1 \(b\.img\) has failed, as its file was deleted'
  wait_for has_copies "$(( ${#legs[@]} - 1 )) of ${#legs[@]}"
  client "write 0 65536 0x63" "read 0 65536 0x63" "write 0 65536 0x61" flush
  truncate -s 4M b.img
  is_whole "${legs[@]}"

  # The first one, and replaced at once, by another of the same size and age.
  start "${legs[@]}"
  cp -p a.img new
  printf x | dd of=new bs=1 seek=70000 conv=notrunc status=none
  touch -r a.img new
  mv new a.img
  wait_for logged 'region 0 \(a\.img\) has failed'
  is_whole "${legs[@]}"

  # Failed by the user, replaced, and added.
  start "${legs[@]}"
  dmioctl fail b.img
  client "write 0 65536 0x63" "write 0 65536 0x61" flush
  truncate -s 4M new
  mv new b.img
  dmioctl add b.img
  is_whole "${legs[@]}"
done

# Moved away and back: it has missed something.
start a.img b.img
mv b.img away
wait_for has_state 1 failed
client "write 0 65536 0x63" "write 0 65536 0x61" flush
mv away b.img
is_whole a.img b.img

# By one that is too small, which is left alone until it is mended.
start a.img b.img
echo text > new
mv new b.img
wait_for logged 'b\.img: another file is there now, of 5 bytes; it needs 4194304'
wait_for logged 'region 1 \(b\.img\) cannot be used'
[ "$(state 1)" = failed ]
[ "$(cat b.img)" = text ]
truncate -s 4M b.img
dmioctl add b.img
is_whole a.img b.img

# By the other leg: one loss must not be that of both.
start a.img b.img
ln -f a.img b.img
wait_for has_state 1 failed
sleep 3
[ "$(state 1)" = failed ]
client "write 0 65536 0x61"
stop_server

# The last one in sync is used as long as that can be.
start a.img b.img
rm a.img
wait_for has_state 0 failed
rm b.img
wait_for logged 'region 1 \(b\.img\): its file was deleted, .* lost when'
[ "$(state 1)" = "in sync" ]
client "read 0 1048576 0x61" "write 0 65536 0x61" flush
# A new one is a copy of it.
truncate -s 4M new.img
dmioctl add "$tmp/new.img"
wait_for has_state 2 'in sync'
wait_for has_state 1 failed
client "read 0 1048576 0x61"
stop_server
holds new.img 0 1048576 0x61

# Or it has been truncated, and another file is put in its place: that has nothing of it,
# so it does not take over.
start a.img b.img
dmioctl fail b.img
truncate -s 1M a.img
client "read 2097152 4096 0 EIO" || client "read 2097152 4096 0 EIO"
random_file other 4194304
mv other a.img
sleep 4
client "read 0 4096 0 EIO"
[ "$(status .in_sync)" -eq 1 ]
kill_server

# Copies of the log: one, all at once, and one that is the only one.
start a.img b.img
rm a.img.dmlog
wait_for test -e a.img.dmlog
wait_for has_copies "2 of 2"
logged 'log copy .*a\.img\.dmlog: its file was deleted or replaced'
[ "$(stat -c %a a.img.dmlog)" = "$(stat -c %a b.img.dmlog)" ]
rm a.img.dmlog b.img.dmlog
wait_for test -e a.img.dmlog
wait_for test -e b.img.dmlog
wait_for has_copies "2 of 2"
[ "$(status .in_sync)" -eq 2 ]
client "write 0 65536 0x61"
kill_server
start_mirror a.img b.img
wait_in_sync
is_whole a.img b.img

make_regions 4M a.img b.img
start_mirror log=log init=clean a.img b.img
client "write 0 1048576 0x61" flush
rm log
wait_for test -e log
wait_for logged 'log: its file was deleted while it was in use, and has been made'
client "write 0 65536 0x61"
kill_server
start_mirror log=log a.img b.img
wait_in_sync
client "read 0 1048576 0x61"

# One that cannot be made anew is used as long as that can be.
cp log other
mv other log
wait_for logged 'log: its file was replaced .* no other copy'
client "write 0 65536 0x61" flush
rm log
wait_for test -e log
client "write 0 65536 0x61" flush
stop_server
start_mirror log=log a.img b.img
[ "$(status .in_sync)" -eq 2 ]
stop_server

# A link leads to an old copy, while the leg is not used: no time of that file changes.
for how in user error; do
  rm -rf d1 d2 b.img ./*.dmlog
  mkdir d1 d2
  make_regions 4M a.img d1/b.img
  cp -p d1/b.img d2/b.img
  ln -s d1/b.img b.img
  start_mirror init=clean chunk=64K a.img b.img
  client "write 0 1048576 0x61" flush
  sleep 5                       # so it is clean
  if [ $how = user ]; then
    dmioctl fail b.img
  else
    mv d1/b.img d1/away
    wait_for has_state 1 failed
  fi
  client "write 2097152 65536 0x63" flush
  sleep 2                       # the log knows what the leg is like
  ln -sfn d2/b.img b.img
  [ $how = error ] || dmioctl add b.img
  wait_in_sync
  stop_server
  same a.img d2/b.img
done
rm -rf d1 d2 b.img

# In the place of one of two is the log of another mirror: that is not overwritten.
make_regions 4M x.img
start_mirror x.img init=clean
stop_server
mv x.img.dmlog saved
start a.img b.img
cp saved new
mv new b.img.dmlog
wait_for logged 'log copy .*b\.img\.dmlog: something else is there'
wait_for has_copies "1 of 2"
cmp saved b.img.dmlog
# And an older state of this one is.
cp a.img.dmlog b.img.dmlog.new
mv b.img.dmlog.new b.img.dmlog
wait_for has_copies "2 of 2"
client "write 0 65536 0x61" flush
is_whole a.img b.img
