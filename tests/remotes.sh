# dmio
# Copyright the dmio authors
# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# What the tests with remote regions share; sourced after functions.sh.  A
# remote has a name, one or a few letters.

requires_python_nbd
requires setpriv util-linux

# Of each remote by its name: its process, URI, address, command and what has to
# come before the command, such as entering a namespace.
declare -A remote_pid remote_uri remote_address remote_command remote_prefix

kill_remotes ()
{
  local pid
  for pid in "${remote_pid[@]}"; do
    kill -KILL "$pid"
    wait "$pid"
  done 2> /dev/null
}
at_exit kill_remotes

# For start_remote: a command that comes first, as above.
remote_launcher=()

# start_remote NAME nbdkit ARGUMENT...
# start_remote NAME qemu-nbd ARGUMENT...
# start_remote NAME silent
# starts a server on the unix socket $tmp/NAME.sock; the last accepts connections
# and never answers.  What nbdkit and qemu-nbd say is in NAME.remote.log.
#
# start_tcp_remote HOST NAME ...: on a free port of the local address HOST
# instead, which is in NAME.port.
start_remote ()
{
  remote_address[$1]=$tmp/$1.sock
  remote_uri[$1]="nbd+unix:///?socket=$tmp/$1.sock"
  remote_prefix[$1]=${remote_launcher[*]}
  remote_command[$1]=$(printf '%q ' "${@:2}")
  restart_remote "$1"
}

start_tcp_remote ()
{
  remote_address[$2]=$1:0
  remote_prefix[$2]=${remote_launcher[*]}
  remote_command[$2]=$(printf '%q ' "${@:3}")
  restart_remote "$2"
  remote_address[$2]=$1:$(cat "$2.port")
  remote_uri[$2]="nbd://${remote_address[$2]}"
}

# restart_remote NAME: the same command at the same address.
restart_remote ()
{
  local -a command prefix
  eval "command=(${remote_command[$1]})"
  read -r -a prefix <<< "${remote_prefix[$1]}"
  case ${command[0]} in
    nbdkit) command=(nbdkit -f -P "$tmp/$1.pid" "${command[@]:1}") ;;
    qemu-nbd) command=(qemu-nbd --persistent --pid-file="$tmp/$1.pid" --shared=0
                       "${command[@]:1}") ;;
  esac
  rm -f "$1.pid"
  # It ends with the test, however that ends.
  "${prefix[@]}" setpriv --pdeathsig KILL "$python" "$srcdir/listen.py" \
    "${remote_address[$1]}" "$tmp/$1" "${command[@]}" \
    < /dev/null >> "$1.remote.log" 2>&1 9>&- &
  remote_pid[$1]=$!
  wait_for eval "[ -s $1.pid ] || has_ended ${remote_pid[$1]}"
  ! has_ended "${remote_pid[$1]}" || die "remote $1 did not start"
}

# kill_remote NAME...: as at a crash.
#
# stop_remote NAME... and continue_remote NAME...: it does nothing in between, but
# its kernel still takes what is sent.  When clients have hung up meanwhile,
# nbdkit 1.32.4 to 1.33.9 needs -t 1, or may end by an assertion.
kill_remote ()
{
  local name
  for name; do
    kill -KILL "${remote_pid[$name]}" 2> /dev/null || true
    wait "${remote_pid[$name]}" 2> /dev/null || true
    unset "remote_pid[$name]"
  done
}

stop_remote ()
{
  local name
  for name; do
    kill -STOP "${remote_pid[$name]}"
  done
}

continue_remote ()
{
  local name
  for name; do
    kill -CONT "${remote_pid[$name]}"
  done
}

#-----------------------------------------------------------------------
# Namespaces

declare -A namespace_pid

kill_namespaces ()
{
  local pid
  for pid in "${namespace_pid[@]}"; do
    kill -KILL "$pid"
    wait "$pid"
  done 2> /dev/null
}

requires_namespaces ()
{
  requires ip iproute2
  requires nsenter util-linux
  is_root || skip "only root can make network namespaces"
  at_exit kill_namespaces
}

has_own_network ()
{
  [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}

# new_namespace NAME: with a loopback device that is up.  It has no name in the
# system and goes with its processes.
new_namespace ()
{
  setpriv --pdeathsig KILL unshare -n sleep 1000 < /dev/null &
  namespace_pid[$1]=$!
  wait_for has_own_network "${namespace_pid[$1]}"
  in_namespace "$1" ip link set lo up
}

# inside NAME: sets inside to a command that runs another one there.
inside ()
{
  inside=(nsenter "--net=/proc/${namespace_pid[$1]}/ns/net")
}

in_namespace ()
{
  local inside
  inside "$1"
  "${inside[@]}" "${@:2}"
}

# cable NAME NAME: the first has the address 10.0.0.1, the second 10.0.0.2.
cable ()
{
  in_namespace "$1" ip link add cable type veth peer name cable \
               netns "${namespace_pid[$2]}"
  in_namespace "$1" ip addr add 10.0.0.1/24 dev cable
  in_namespace "$2" ip addr add 10.0.0.2/24 dev cable
  in_namespace "$1" ip link set cable up
  in_namespace "$2" ip link set cable up
}

#-----------------------------------------------------------------------
# TLS

# certificate FILE NAME ISSUER [DAYS]: a key FILE-key.pem and a certificate
# FILE-cert.pem for the host NAME, by the authority of ca-cert.pem and ca-key.pem
# in the directory ISSUER; valid for DAYS days from 10 days ago on.
certificate ()
{
  cat > template <<TEMPLATE
cn = "$2"
dns_name = "$2"
$([[ $2 =~ ^[0-9.]+$ ]] && echo "ip_address = $2")
activation_date = "$(date -d '10 days ago' '+%F %T')"
expiration_date = "$(date -d "10 days ago + ${4:-1000} days" '+%F %T')"
tls_www_server
tls_www_client
signing_key
encryption_key
TEMPLATE
  certtool --generate-privkey --key-type ecdsa --curve secp256r1 \
           --outfile "$1-key.pem" 2> /dev/null
  certtool --generate-certificate --template template \
           --load-privkey "$1-key.pem" --load-ca-certificate "$3/ca-cert.pem" \
           --load-ca-privkey "$3/ca-key.pem" --outfile "$1-cert.pem" \
           2> certtool.out
}

# authority DIRECTORY: makes it, with ca-cert.pem and ca-key.pem.
authority ()
{
  mkdir -p "$1"
  printf '%s\n' 'cn = "dmio test"' ca cert_signing_key 'expiration_days = 1000' \
    > template
  certtool --generate-privkey --key-type ecdsa --curve secp256r1 \
           --outfile "$1/ca-key.pem" 2> /dev/null
  certtool --generate-self-signed --template template \
           --load-privkey "$1/ca-key.pem" --outfile "$1/ca-cert.pem" \
           2> certtool.out
}

#-----------------------------------------------------------------------
# The server with the plugin

# refused SECONDS THING CAUSE ARGUMENT...: nbdkit refuses these arguments before
# it goes into the background, within that time; one line of what it says has
# both of these in it (regular expressions, case not regarded).
kill_daemon ()
{
  [ -s "$tmp/daemon.pid" ] || return 0
  kill -KILL "$(cat "$tmp/daemon.pid")"
  rm -f "$tmp/daemon.pid" "$tmp/daemon.sock"
}
at_exit kill_daemon

refused ()
{
  local status=0 begin=${EPOCHREALTIME/./} msec
  timeout -k 5 30 "${launcher[@]}" "${nbdkit[@]}" -P "$tmp/daemon.pid" \
    -U "$tmp/daemon.sock" "$DMIO_PLUGIN" log=none "${@:4}" \
    < /dev/null > refused.log 2>&1 || status=$?
  msec=$(( (${EPOCHREALTIME/./} - begin) / 1000 ))
  cat refused.log >&2
  kill_daemon
  [ $status -eq 1 ] || die "status $status and not 1"
  [ $msec -le $(( $1 * 1000 + $(slack) )) ] || die "it took $msec ms"
  grep -Ei -- "$2" refused.log | grep -Ei -- "$3" > /dev/null ||
    die "no line with '$2' and '$3'"
}

# What a start and an end take beside all waiting, in milliseconds, on a slow
# machine; less than the timeout that tests give to what must not wait for it.
slack ()
{
  echo $(( ${#DMIO_PRELOAD} > 0 ? 15000 : 10000 ))
}

# stop_server_within SECONDS: as stop_server, but in that time.
stop_server_within ()
{
  local begin=${EPOCHREALTIME/./} msec
  stop_server
  msec=$(( (${EPOCHREALTIME/./} - begin) / 1000 ))
  [ $msec -le $(( $1 * 1000 + $(slack) )) ] || die "the end took $msec ms"
}

# State changes of the region on the remote NAME; how often each was logged:
# the connection was lost, is there again, will not be made again; and reads
# do not use the region any more.
lines ()
{
  grep -cE -- "$(region "$1").*($2)" "$server_log" || true
}

lost ()
{
  lines "$1" 'lost its connection'
}

back ()
{
  lines "$1" 'connected again'
}

failed ()
{
  lines "$1" 'fails until.* restart'
}

out_of_sync ()
{
  lines "$1" 'out of sync.* until restart'
}

# region NAME: what log lines call it.
region ()
{
  echo "${remote_uri[$1]}" | sed 's/[^A-Za-z0-9/:]/\\&/g'
}

#-----------------------------------------------------------------------
# Load

# start_load SECONDS OPTION...: see load.py; it has begun when this returns.
start_load ()
{
  rm -f load.log
  bounded "$python" "$srcdir/load.py" "$uri" "$@" > load.log 2>&1 &
  load_pid=$!
  servers+=("$load_pid")
  wait_for eval "grep -q running load.log || has_ended $load_pid"
}

# end_load: waits for its end; it must have been content.
end_load ()
{
  local status=0
  wait "$load_pid" || status=$?
  forget_server "$load_pid"
  cat load.log
  [ $status -eq 0 ] || die "the load found a mistake"
}

# start_three POSITION COMMAND...: three regions, filled as load.py wants it, on
# the remotes a, b and, at that position, c, which runs the command; the timeout
# is 1 s.  The others run the command in others.
others=(nbdkit -t 1 file)

start_three ()
{
  local name
  for name in a b c; do
    "$python" "$srcdir/load.py" make $name.img $(( 4 << 20 ))
  done
  start_remote a "${others[@]}" "$tmp/a.img"
  start_remote b "${others[@]}" "$tmp/b.img"
  start_remote c "${@:2}"
  start_dmio_on_three "$1"
}

start_dmio_on_three ()
{
  local regions=("${remote_uri[a]}" "${remote_uri[b]}")
  start_dmio timeout=1 "${regions[@]:0:$1}" "${remote_uri[c]}" \
             "${regions[@]:$1}"
}

# c_stays_away: after a load of changes during which c failed.
c_stays_away ()
{
  grep -E '^(write|fua|zero|trim) EIO:' load.log
  [ "$(failed c)" -eq 1 ]
  [ "$(lost c)" -eq 1 ]
  [ "$(out_of_sync c)" -eq 1 ]
  logged "$(region c).*lost its connection \((the server|nbd_[a-z_]+:) "
  [ "$(back c)" -eq 0 ]
  client "write 0 4096 0x41 EIO" "read 0 4096 0x41" "flush EIO"
  ! grep -E "$(region a)|$(region b)" "$server_log" | grep -E 'failed|lost' ||
    die "others have failed"
}

all_are_back ()
{
  local name
  for name in a b c; do
    [ "$(lost $name)" -eq "$(back $name)" ] || return 1
  done
}

# c_comes_back: after a load of reads during which c was away for a while.  It is
# back within some seconds and then used: by writes, and by reads when no
# other region is there.
c_comes_back ()
{
  [ "$(lost c)" -ge 1 ]
  wait_for all_are_back
  client "write 0 4096 0x42" "read 0 4096 0x42" flush
  holds c.img 0 4096 0x42
  same a.img b.img c.img
  kill_remote a b
  client "read 0 4096 0x42"
  [ "$(lost c)" -eq "$(back c)" ]
  [ "$(failed c)" -eq 0 ]
}

