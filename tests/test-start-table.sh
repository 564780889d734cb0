#!/usr/bin/env bash
# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
#
# Starts of a mirror of three regions of which one cannot be used, or one copy of
# its log: missing, unreadable, of another kind, empty, too small, in each place, on
# the first start and on a later one, with and without init=, log= and degraded=.
# A start that is refused names the thing and a remedy, and leaves everything
# as it was.

# shellcheck source=functions.sh
. "$(dirname "$0")/functions.sh"
requires setpriv util-linux

# For what root may, but others may not.
unprivileged=()
if is_root; then
  unprivileged=(setpriv '--bounding-set=-dac_override,-dac_read_search')
fi

regions=(a.img b.img c.img)
copies=(1.log 2.log 3.log)

# What can be wrong.
kinds=(missing unreadable read-only directory fifo character-device empty small)

# spoil FILE KIND
spoil ()
{
  case $2 in
    unreadable|read-only)
      [ -e "$1" ] || truncate -s 64K "$1"
      chmod "$([ "$2" = read-only ] && echo 444 || echo 000)" "$1"
      return ;;
  esac
  rm -f "$1"
  case $2 in
    missing) ;;
    directory) mkdir "$1" ;;
    fifo) mkfifo "$1" ;;
    character-device) ln -s /dev/null "$1" ;;
    empty) : > "$1" ;;
    small) head -c 100 /dev/zero > "$1" ;;
  esac
}

# everything: what there is, and what it is like.
everything ()
{
  find mirror -mindepth 1 -printf '%P %y %m %s %T@ %l\n' | sort
  find mirror -type f -perm /400 -exec cksum {} + | sort
}

# start ARGUMENT...: as a server that is asked to end at once.  Not by --run:
# its shell cannot be started with ThreadSanitizer.
start ()
{
  local status=0 pid
  rm -f pid sock
  (cd mirror && exec "${unprivileged[@]}" "${nbdkit[@]}" -f \
    --exit-with-parent -U "$tmp/sock" -P "$tmp/pid" "$DMIO_PLUGIN" \
    control="$tmp/mirror/ctl" "$@" < /dev/null > "$tmp/message.txt" 2>&1) &
  pid=$!
  servers+=("$pid")
  wait_for eval "[ -s pid ] || has_ended $pid"
  ask_to_end "$pid" 2> /dev/null || true
  wait "$pid" || status=$?
  forget_server "$pid"
  return $status
}

failures=0
complain ()
{
  echo "FAILED: $what: $*" >&2
  cat message.txt >&2
  failures=$(( failures + 1 ))
}

# fresh FIRST|LATER: the mirror as it was.
fresh ()
{
  rm -rf mirror
  cp -a "$1" mirror
}

# refused NAME ARGUMENT...
#
# accepted ARGUMENT...
refused ()
{
  local status=0
  everything > before.list
  start "${@:2}" || status=$?
  [ $status -eq 1 ] || complain "status $status"
  grep -F -- "$1" message.txt | grep -Eq \
    'check the name|correct|create|remove|must be|needs access|make it|truncate|init=|back' ||
    complain "no message with '$1' and a remedy"
  ! grep -q 'create it' message.txt || [[ " $* " == *" init="* ]] ||
    complain "creating it would be wrong"
  everything > after.list
  diff before.list after.list || complain "something has changed"
}

accepted ()
{
  start "$@" || complain "status $?"
}

# A mirror before its first start, and three that have been used: without
# log=, with it, and the latter without the others.
mkdir first
random_file first/a.img 64K
cp first/a.img first/b.img
cp first/a.img first/c.img
logs=("${copies[@]/#/log=}")
what='the first start'
fresh first
accepted "${regions[@]}" init=clean
mv mirror later
fresh first
accepted "${regions[@]}" "${logs[@]}" init=clean
mv mirror later-log
[ "$failures" -eq 0 ]

# try REGION|COPY WHEN OPTIONS: with the arguments.  A copy that does not exist is
# made, if its place is known to be the log's.
try ()
{
  local options
  read -r -a options <<< "$3"
  fresh "$2"
  spoil "mirror/$file" "$kind"
  what="$2 start, $1 $file $kind, ${arguments[*]} $3"
  case $1:$2:$kind:$3 in
    region:later*:missing:degraded=yes | \
      region:later*:unreadable:degraded=yes | \
      region:later*:read-only:degraded=yes | \
      copy:later*:missing:* | copy:first:missing:init=* | \
      copy:later-log:unreadable:degraded=yes)
      accepted "${arguments[@]}" "${options[@]}" ;;
    *) refused "$file" "${arguments[@]}" "${options[@]}" ;;
  esac
}

for kind in "${kinds[@]}"; do
  arguments=("${regions[@]}")
  for file in "${regions[@]}"; do
    try region first ''
    try region first init=clean
    try region later ''
  done
  for file in "${regions[@]/%/.dmlog}"; do
    try copy first init=sync
    try copy later ''
  done
  arguments+=("${logs[@]}")
  for file in "${copies[@]}"; do
    try copy first init=clean
    try copy later-log ''
  done
done

# The word of the user changes nothing for what is there, and cannot be used.
for kind in missing unreadable read-only directory; do
  arguments=("${regions[@]}")
  for file in "${regions[@]}"; do
    try region first degraded=yes
    try region later degraded=yes
  done
  arguments+=("${logs[@]}")
  for file in "${regions[@]}"; do
    try region first 'init=sync degraded=yes'
    try region later-log ''
    try region later-log degraded=yes
  done
  for file in "${copies[@]}"; do
    try copy later-log degraded=yes
  done
done

# A name that is wrong, in each place: what it should have been is there.
for wrong in typo.img "nbd+unix:///?socket=$tmp/typo.sock"; do
  for i in 0 1 2; do
    arguments=("${regions[@]}")
    arguments[i]=$wrong
    for options in '' degraded=yes init=clean; do
      fresh first
      what="first start, $wrong for $i, $options"
      # shellcheck disable=SC2086
      refused "$wrong" "${arguments[@]}" $options log=1.log
    done
    for options in '' degraded=yes; do
      fresh later
      what="later start, $wrong for $i, $options"
      # shellcheck disable=SC2086
      refused "$wrong" "${arguments[@]}" $options
      grep -F "$wrong" message.txt | grep -q 'not a leg.*correct its name' ||
        complain "it does not say which names are right"
    done
  done
done

# All regions that there are, without any copy of the log, and all missing.
fresh later
what='all regions missing'
rm mirror/*.img mirror/*.dmlog
refused c.img "${regions[@]}"
refused c.img "${regions[@]}" degraded=yes

[ "$failures" -eq 0 ] || die "$failures mistakes, see above"
