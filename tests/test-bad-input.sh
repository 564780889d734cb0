#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Bad input is refused before nbdkit forks, with a message that names the thing
# and the remedy, and harms no file.  The table is at the end.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires qemu-io qemu-utils
requires setpriv util-linux
requires nbdcopy libnbd-bin

# For what root may, but others may not.
unprivileged=()
if is_root; then
  unprivileged=(setpriv '--bounding-set=-dac_override,-dac_read_search')
fi

# Without -f, nbdkit goes into the background if it likes the input, and leaves a
# pid file.
kill_daemon ()
{
  [ -s "$tmp/pid" ] || return 0
  kill -KILL "$(cat "$tmp/pid")"
  wait_for has_ended "$(cat "$tmp/pid")"
  rm "$tmp/pid" "$tmp/sock"
}
at_exit kill_daemon

failures=0
complain ()
{
  echo "FAILED: ${arguments[*]}: $*" >&2
  cat message.log >&2
  failures=$(( failures + 1 ))
}

# refuses THING REMEDY ARGUMENT...: nbdkit refuses these arguments; one line of
# what it says matches both regular expressions, case not regarded.
refuses ()
{
  local thing=$1 remedy=$2 status=0
  shift 2
  arguments=("$@")
  echo "refuses $*"
  timeout 20 "${unprivileged[@]}" "${nbdkit[@]}" -P pid -U "$tmp/sock" \
    "$DMIO_PLUGIN" "$@" < /dev/null > message.log 2>&1 || status=$?
  case $status in
    0) complain "accepted" ;;
    1) ;;
    *) complain "status $status" ;;
  esac
  [ ! -e pid ] || complain "it went into the background"
  kill_daemon
  grep -Ei -- "$thing" message.log | grep -qEi -- "$remedy" ||
    complain "no message with '$thing' and '$remedy'"
}

# What there is.
random_file good.img 1M
random_file other.img 1M
random_file served.img 1M
random_file qemu.img 1M
random_file odd.img 100000
random_file tiny.img 511
random_file unreadable.img 1M
chmod 000 unreadable.img
random_file read-only.img 1M
chmod 444 read-only.img
truncate -s 1T huge.img
: > empty.img
mkdir directory
mkfifo fifo
ln -s good.img symlink.img
ln good.img hardlink.img
ln -s nowhere.img dangling.img
random_file 'a=b.img' 1M
many=()
for i in $(seq 65); do
  truncate -s 4K "many$i.img"
  many+=("many$i.img")
done

# What is in the files, and when it was changed, and which there are.  The time
# does not go for those that are open.
checksums ()
{
  chmod 400 unreadable.img
  find . -name '*.img' -type f ! -name huge.img -exec sha256sum {} + | sort
  find . -name '*.dmlog' -o -name x -o -name new
  chmod 000 unreadable.img
  find . -name '*.img' -type f ! -name served.img ! -name qemu.img \
       -printf '%p %T@\n' | sort
}
checksums > before.sum

# A file that another server serves, and one that qemu has open.
start_dmio served.img
mkfifo commands
DMIO_TIMEOUT=1200 bounded qemu-io -f raw qemu.img < commands > qemu.log 2>&1 &
qemu_pid=$!
servers+=("$qemu_pid")
exec 9> commands
echo 'length' >&9
wait_for grep -q '1 MiB' qemu.log

# The table:
#       thing               remedy
#       arguments
refuses 'region'            'file|block device' \
        log=none
refuses 'no log yet'        'init=clean.*init=sync.*log=none' \
        good.img other.img
refuses 'no log yet'        'init=clean.*init=sync.*log=none' \
        good.img log=x
refuses "log copy ''"            'empty.*log=none' \
        good.img log=
refuses 'log=none'          'twice' \
        good.img log=none log=none
for logs in 'log=none log=x' 'log=x log=none'; do
  # shellcheck disable=SC2086
  refuses 'log='            'log=none.*leave out' \
          good.img $logs
done
refuses "log copy 'x,direct=on'" 'unknown.*known are.*sector=N' \
        good.img log=x,direct=on init=clean
refuses "log copy 'x,write-mostly'" 'unknown.*known are.*sector=N' \
        good.img log=x,write-mostly init=clean
for parameter in init=clean chunk=1M degraded=yes degraded=no quorum=1 \
                 resync-rate=1M; do
  refuses "${parameter%=*}=" 'log=none.*leave out' \
          good.img log=none "$parameter"
done
for value in '' Clean none yes clean,sync; do
  refuses "init=$value"     'clean.*alike.*sync.*copy' \
          good.img "init=$value"
done
for value in '' 0 -1 1 32K 96K 3M 2T 1Z x 1M1 99999999999999999999; do
  refuses "chunk=$value:"   'power of two.*64K.*1T' \
          good.img init=clean "chunk=$value"
done
for value in '' 1 0 on maybe YES; do
  refuses "degraded=$value:" 'yes or no' \
          good.img "degraded=$value"
done
for value in '' 0 -1 1.5 x 65 2x; do
  refuses "quorum=$value:"  'number of regions.*1.*64' \
          good.img other.img init=clean "quorum=$value"
done
refuses 'quorum=3'          'only 2 regions' \
        good.img other.img init=clean quorum=3
for value in '' -1 x 1Z 1..5; do
  refuses "resync-rate=$value:" 'bytes per second' \
          good.img init=clean "resync-rate=$value"
done
refuses 'control='          'empty' \
        good.img init=clean control=
refuses 'control='          'too long.*shorter' \
        good.img init=clean control="$(printf '%0120d' 0)"
refuses 'control=.*/good\.img' 'not a socket.*another' \
        good.img init=clean control=./good.img
refuses 'control=.*/missing/' 'No such file.*directory' \
        good.img init=clean control=missing/socket
refuses 'control=.*\.sock'  'another server.*stop' \
        good.img init=clean control="$server_socket"
for key in init=clean chunk=1M degraded=yes quorum=1 resync-rate=1M \
           control=x; do
  refuses "${key%=*}="      'twice' \
          good.img "$key" "$key"
done
refuses 'no region is a file' 'log=FILE.*log=none' \
        /dev/zero init=clean
refuses 'missing\.img'      'No such file' \
        good.img missing.img init=clean
refuses 'read-only\.img'    'cannot be written; make it.*writable' \
        good.img read-only.img init=clean
refuses 'served\.img'       'locked.*another server.*stop' \
        good.img served.img init=clean
refuses "log copy 'directory'"   'must be|file or a block device' \
        good.img log=directory init=clean
refuses "log copy 'empty\.img'"  'too small.*remove' \
        good.img log=empty.img init=clean
refuses "log copy 'good\.img'.*region 'good\.img'" 'sector=.*count=' \
        good.img log=good.img init=clean
refuses "log copy 'new'"         'same file|exists' \
        good.img log=new log=new init=clean
refuses "log copy 'many1\.img'"  'too small.*remove' \
        good.img log=many1.img init=clean
refuses 'log copy other\.img' 'no valid superblock.*not empty.*remove' \
        good.img log=other.img init=clean
refuses "log copy 'read-only\.img'" 'writable' \
        good.img log=read-only.img init=clean
refuses "log copy 'missing/log'" 'No such file.*log=' \
        good.img log=missing/log init=clean
refuses "log copy 'nbd://localhost:1'" 'refused' \
        good.img log=nbd://localhost:1 init=clean
refuses 'more than 8388608 chunks' 'chunk=' \
        huge.img init=clean chunk=64K
refuses 'nonsense'          'known|region=' \
        good.img log=none nonsense=1
refuses "parameter 'a'"     'region=' \
        a=b.img log=none
refuses 'missing\.img'      'No such file.*create' \
        good.img missing.img log=none
refuses 'dangling\.img'     'No such file' \
        dangling.img log=none
refuses 'directory'         'must be|file or a block device' \
        good.img directory log=none
refuses 'fifo'              'must be|file or a block device' \
        good.img fifo log=none
refuses '/dev/null'         'must be|file or a block device' \
        good.img /dev/null log=none
refuses '/dev/urandom'      'must be|file or a block device' \
        good.img /dev/urandom log=none
refuses '/dev/tty'          'must be|file or a block device|No such' \
        good.img /dev/tty log=none
refuses 'unreadable\.img'   'Permission denied.*access' \
        good.img unreadable.img log=none
refuses 'empty\.img'        'size.*truncate' \
        good.img empty.img log=none
refuses 'empty\.img'        'size.*truncate' \
        good.img empty.img,count=1 log=none
refuses 'odd\.img'          '100000.*multiple.*count=195' \
        good.img odd.img log=none
refuses 'odd\.img,sector=100' '100000.*multiple.*count=95' \
        good.img odd.img,sector=100 log=none
refuses 'odd\.img,sector=195' 'beyond.*195 sectors' \
        good.img odd.img,sector=195 log=none
refuses 'tiny\.img'         '511 bytes, less than one block of 512.*truncate' \
        good.img tiny.img log=none
refuses 'odd\.img,count=196' '195 sectors' \
        good.img odd.img,count=196 log=none
refuses 'good\.img,sector=2048' '2048 sectors' \
        good.img,sector=2048 log=none
refuses 'good\.img,sector=9223372036854775807' 'sector' \
        good.img,sector=9223372036854775807 log=none
refuses 'good\.img,count=2049' '2048 sectors' \
        good.img,count=2049 log=none
refuses 'good\.img,sector=1,count=2048' '2048 sectors' \
        good.img,sector=1,count=2048 log=none
refuses 'good\.img,sector=2047,count=18014398509481983' '2048 sectors' \
        good.img,sector=2047,count=18014398509481983 log=none
refuses 'good\.img,count=0' 'at least one' \
        good.img,count=0 log=none
for option in sector count; do
  for number in '' x 1x 0x10 1.5 1K -1 +1 ' 1' '1 ' 36028797018963968 \
                18446744073709551615 18446744073709551616 \
                99999999999999999999999999; do
    refuses "good\.img,$option=.*$option" 'number|at least one' \
            "good.img,$option=$number" log=none
  done
done
refuses 'good\.img,size=1'  'unknown.*size=1.*sector=N.*count=N' \
        good.img,size=1 log=none
refuses 'good\.img,'        'known are sector=N.*count=N' \
        good.img, log=none
refuses 'good\.img,b\.img'  'known are sector=N.*,,' \
        good.img,b.img log=none
refuses 'good\.img,sector=1,sector=2' 'twice|more than once|already' \
        good.img,sector=1,sector=2 log=none
refuses 'region'            'empty.*file' \
        good.img region= log=none
refuses ',sector=1'         'empty.*file' \
        good.img ,sector=1 log=none
refuses 'good\.img'         'same file.*once' \
        good.img other.img good.img log=none
refuses 'symlink\.img'      'same file.*good\.img.*once' \
        good.img symlink.img log=none
refuses 'hardlink\.img'     'same file.*good\.img.*once' \
        good.img hardlink.img log=none
refuses 'good\.img'         'same file.*once' \
        good.img,count=1024 good.img,sector=1024 log=none
refuses 'served\.img'       'locked.*another server.*stop' \
        good.img served.img log=none
refuses 'qemu\.img'         'locked.*qemu.*stop' \
        good.img qemu.img log=none
for value in '' maybe ON On 1 yes on1 'on '; do
  refuses "good\.img,direct=$value':" 'on or off' \
          "good.img,direct=$value" log=none
done
refuses 'good\.img,direct'  'unknown.*known are.*direct=on\|off' \
        good.img,direct log=none
refuses 'good\.img,Direct=on' 'unknown.*known are.*direct=on\|off' \
        good.img,Direct=on log=none
for options in direct=on,direct=off direct=off,direct=off; do
  refuses "good\.img,$options" 'direct=.*twice' \
          "good.img,$options" log=none
done
refuses '/dev/zero,direct=on' 'O_DIRECT.*direct=off' \
        good.img /dev/zero,direct=on log=none
for option in write-mostly= write-mostly=on write_mostly Write-Mostly \
              writemostly ' write-mostly'; do
  refuses "good\.img,$option" 'unknown.*known are.*write-mostly' \
          "good.img,$option" other.img log=none
done
for option in on off; do
  refuses "nbd://localhost:1,direct=$option" 'direct.*files' \
          good.img "nbd://localhost:1,direct=$option" log=none
done
refuses 'nbd://localhost:1' 'cannot connect.*refused' \
        good.img nbd://localhost:1 log=none
for value in '' fist Balance FIRST 0 first,balance; do
  refuses "read=$value" 'balance or first' \
          good.img log=none "read=$value"
done
refuses 'read='             'twice' \
        good.img log=none read=first read=first
refuses 'read='             'twice' \
        good.img log=none read=first read=balance
for value in '' 0 -1 1.5 10s 0x10 ' 1' 86401 18446744073709551617; do
  refuses "timeout=$value" 'seconds from 1 to 86400' \
          good.img log=none "timeout=$value"
done
refuses 'timeout='          'twice' \
        good.img log=none timeout=10 timeout=10
refuses "parameter 'direct'" 'known are.*init=.*control=.*read=.*timeout=' \
        good.img log=none direct=on
refuses "parameter 'write-mostly'" 'known are.*read=.*timeout=' \
        good.img log=none write-mostly=on
refuses 'many65\.img'       'at most 64' \
        "${many[@]}" log=none

# Nothing was harmed, and what was in use still works.
checksums > after.sum
diff before.sum after.sum
bounded nbdcopy "$uri" - | cmp served.img -
echo 'quit' >&9
exec 9>&-
wait_for has_ended "$qemu_pid"
forget_server "$qemu_pid"
wait "$qemu_pid"
stop_server

# The other way round: what a dmio server serves is refused by qemu.
start_dmio good.img
! bounded qemu-io -f raw -c 'write 0 512' good.img 2> message.log ||
  die "qemu opens a file that is being served"
grep -i 'lock' message.log
stop_server

# The same arguments without the mistake are accepted, so it was that which was
# refused: 64 regions, every kind of name and option.
start_dmio "${many[@]:0:64}"
stop_server
start_dmio good.img,sector=1,count=2047 region=a=b.img odd.img,count=195 \
           other.img,write-mostly read=first timeout=86400
stop_server
start_dmio good.img,write-mostly,sector=1,direct=off other.img,direct=on \
           /dev/zero,direct=off read=balance timeout=1
stop_server

[ "$failures" -eq 0 ] || die "$failures mistakes, see above"
