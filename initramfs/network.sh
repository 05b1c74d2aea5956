# Brings the network up as the kernel's command line says (`ip=` of the kernel and of dracut, `BOOTIF=`, `vlan=`,
# `nameserver=`), and writes down what was learnt in $NET_ENV. Read by `.` after common.sh, in both stages.

NET_ENV=${NET_ENV-/run/diskswarm/network.env}
NET_SYS=${NET_SYS-/sys}
NET_SCRIPT=${NET_SCRIPT-/lib/diskswarm/udhcpc.sh}

# Splits $1 at its colons into FIELD_1 to FIELD_12; an IPv6 address stands in brackets.
split_fields() {
  local rest="$1:" field count=0
  FIELD_1= FIELD_2= FIELD_3= FIELD_4= FIELD_5= FIELD_6= FIELD_7= FIELD_8= FIELD_9= FIELD_10=
  while [ -n "$rest" ] && [ $count -lt 10 ]; do
    case $rest in
      \[*\]:*) field=${rest#\[} field=${field%%\]*} rest=${rest#*\]:} ;;
      *) field=${rest%%:*} rest=${rest#*:} ;;
    esac
    count=$((count + 1))
    eval "FIELD_$count=\$field"
  done
  FIELD_COUNT=$count
}

# Reads the value of `ip=`: IP_METHOD is then dhcp, auto6, static or off; the others are empty where it names none.
# Status 1, with IP_PROBLEM set, where it is none.
parse_ip() {
  IP_METHOD= IP_ADDRESS= IP_SERVER= IP_GATEWAY= IP_PREFIX= IP_HOSTNAME= IP_DEVICE= IP_DNS= IP_NTP= IP_MTU= IP_PROBLEM=
  split_fields "$1"
  case $FIELD_1 in
    *.*.*.* | *:*:* | '')
      # CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF:DNS:DNS:NTP; dracut has the MTU where the kernel has DNS.
      IP_ADDRESS=${FIELD_1%/*} IP_SERVER=$FIELD_2 IP_GATEWAY=$FIELD_3 IP_HOSTNAME=$FIELD_5 IP_DEVICE=$FIELD_6
      case $FIELD_8 in
        *.* | *:*) IP_DNS="$FIELD_8 $FIELD_9" IP_DNS=${IP_DNS% } ;;
        *) IP_MTU=$FIELD_8 ;;
      esac
      IP_NTP=$FIELD_10
      if [ -n "$IP_ADDRESS" ]; then
        IP_METHOD=static
        case $FIELD_1 in */*) FIELD_4=${FIELD_1#*/} ;; esac
        IP_PREFIX=$(prefix_of "$IP_ADDRESS" "$FIELD_4") || IP_PROBLEM="\"$FIELD_4\" is no netmask"
      else
        method_of "${FIELD_7:-dhcp}"
      fi
      ;;
    *)
      if [ "$FIELD_COUNT" = 1 ]; then
        method_of "$FIELD_1"
      else
        # dracut's DEVICE:AUTOCONF:MTU
        IP_DEVICE=$FIELD_1 IP_MTU=$FIELD_3
        method_of "$FIELD_2"
      fi
      ;;
  esac
  case $IP_MTU in *[!0-9]*) IP_PROBLEM="\"$IP_MTU\" is no MTU" ;; esac
  [ -z "$IP_PROBLEM" ]
}

method_of() {
  case $1 in
    dhcp | on | any | both | bootp | rarp | single-dhcp | link-local | either6) IP_METHOD=dhcp ;;
    auto6 | dhcp6) IP_METHOD=auto6 ;;
    off | none) IP_METHOD=off ;;
    *) IP_PROBLEM="\"$1\" is neither an address nor dhcp, auto6 or off" ;;
  esac
}

# The prefix length of a netmask, of a length, or of the address's class where there is none (as the kernel has it).
prefix_of() {
  local rest=$2. octet bits=0 ended=
  case $2 in
    '')
      case $1 in *:*) echo 64; return 0 ;; esac
      octet=${1%%.*}
      if [ "$octet" -lt 128 ]; then echo 8; elif [ "$octet" -lt 192 ]; then echo 16; else echo 24; fi
      return 0
      ;;
    *.*.*.*) ;;
    *[!0-9]*) return 1 ;;
    *) [ "$2" -le 128 ] && echo "$2"; return ;;
  esac
  while [ -n "$rest" ]; do
    octet=${rest%%.*} rest=${rest#*.}
    # A mask is ones, and then zeros only.
    case $ended$octet in
      255) bits=$((bits + 8)) ;;
      254) bits=$((bits + 7)) ended=- ;;
      252) bits=$((bits + 6)) ended=- ;;
      248) bits=$((bits + 5)) ended=- ;;
      240) bits=$((bits + 4)) ended=- ;;
      224) bits=$((bits + 3)) ended=- ;;
      192) bits=$((bits + 2)) ended=- ;;
      128) bits=$((bits + 1)) ended=- ;;
      0 | -0) ended=- ;;
      *) return 1 ;;
    esac
  done
  echo $bits
}

# `01-52-54-00-12-34-56` (PXELINUX, iPXE: hardware type first) or a plain address, as the kernel writes it.
mac_of_bootif() {
  local mac=$1
  case $mac in ??[-:]??[-:]??[-:]??[-:]??[-:]??[-:]??) mac=${mac#???} ;; esac
  echo "$mac" | tr 'A-F-' 'a-f:'
}

# `vlan=NAME:DEVICE`: the number is what the name ends with (`eth0.5`, `vlan0005`).
vlan_id() {
  local id=${1##*[!0-9]}
  while [ "${id#0}" != "$id" ] && [ ${#id} -gt 1 ]; do id=${id#0}; done
  [ -n "$id" ] && [ "$id" -ge 1 ] && [ "$id" -le 4094 ] && echo "$id"
}

# Ethernet cards by name: hardware, not wireless.
wired_interfaces() {
  local path
  for path in "$NET_SYS"/class/net/*; do
    [ -e "$path/device" ] && [ ! -e "$path/wireless" ] && [ ! -e "$path/phy80211" ] || continue
    [ "$(cat "$path/type")" = 1 ] && echo "${path##*/}"
  done
}

mac_of() {
  cat "$NET_SYS/class/net/$1/address" 2> /dev/null
}

has_link() {
  # Reading it fails on an interface that is down.
  [ "$(cat "$NET_SYS/class/net/$1/carrier" 2> /dev/null)" = 1 ]
}

# The cards that may be used, those that the command line means alone where it names one.
candidates() {
  local name bootif
  bootif=$(mac_of_bootif "$(argument BOOTIF)")
  for name in $(wired_interfaces); do
    if [ -n "$IP_DEVICE" ] && [ -z "$VLAN_PARENT" ]; then
      [ "$name" = "$IP_DEVICE" ] || [ "$(mac_of "$name")" = "$(mac_of_bootif "$IP_DEVICE")" ] || continue
    elif [ -n "$VLAN_PARENT" ]; then
      [ "$name" = "$VLAN_PARENT" ] || continue
    elif [ -n "$bootif" ]; then
      [ "$(mac_of "$name")" = "$bootif" ] || continue
    fi
    echo "$name"
  done
}

# A line for a lease: what a server sent must not end the quotes.
env_line() {
  printf "%s='%s'\n" "$1" "$(printf %s "$2" | tr -d "'\000-\037\177")"
}

# Writes what is known in NET_* variables. Renamed into place, so that nobody reads half of it.
write_env() {
  mkdir -p "${NET_ENV%/*}"
  {
    env_line METHOD "$1"
    env_line INTERFACE "$2"
    env_line MAC "$(mac_of "$2")"
    env_line ADDRESS "$NET_ADDRESS"
    env_line PREFIX "$NET_PREFIX"
    env_line ROUTER "$NET_ROUTER"
    env_line NEXT_SERVER "$NET_NEXT_SERVER"
    env_line BOOT_FILE "$NET_BOOT_FILE"
    env_line DNS "$NET_DNS"
    env_line NTP "$NET_NTP"
    env_line HOSTNAME "$NET_HOSTNAME"
    env_line DOMAIN "$NET_DOMAIN"
    env_line DHCP_SERVER "$NET_DHCP_SERVER"
    env_line LEASE_SECONDS "$NET_LEASE_SECONDS"
  } > "$NET_ENV.new" && mv "$NET_ENV.new" "$NET_ENV"
}

# /etc/resolv.conf is a link to it. A name server of the command line comes before those of DHCP.
write_resolv_conf() {
  local server
  {
    [ -z "$NET_DOMAIN" ] || echo "search $NET_DOMAIN"
    for server in $(argument nameserver | tr -d '[]') $NET_DNS; do echo "nameserver $server"; done
  } > "${NET_ENV%/*}/resolv.conf"
}

# Address, route and MTU of $1. Replaced, never taken away first: connections of a deployment go on over a renewal.
configure() {
  local device=$1 route
  [ -z "$NET_MTU" ] || ip link set "$device" mtu "$NET_MTU"
  ip addr replace "$NET_ADDRESS/$NET_PREFIX" dev "$device" || return 1
  if [ -n "$NET_STATIC_ROUTES" ]; then
    # Option 121 (RFC 3442): pairs of network and router; with it the routers of option 3 do not count.
    set -- $NET_STATIC_ROUTES
    while [ $# -ge 2 ]; do
      route="via $2"
      [ "$2" != 0.0.0.0 ] || route=
      ip route replace "$1" $route dev "$device"
      shift 2
    done
  elif [ -n "$NET_ROUTER" ]; then
    # Where the netmask does not hold the router (/32 of some clouds) a route to it has to be first.
    ip route replace default via "${NET_ROUTER%% *}" dev "$device" 2> /dev/null ||
      { ip route replace "${NET_ROUTER%% *}" dev "$device" && ip route replace default via "${NET_ROUTER%% *}" dev "$device"; }
  fi
}

ask_dhcp() {
  udhcpc -i "$1" -n -q -t 4 -T 2 -S -s "$NET_SCRIPT" $UDHCPC_FLAGS > /dev/null 2>&1
}

# Options asked for beside busybox's own; the class lets a DHCP server tell our nodes from firmware.
UDHCPC_FLAGS="-V diskswarm -O ntpsrv -O tftp -O bootfile -O mtu -O search -O staticroutes"

# Goes on renewing the lease, as long as the machine runs: an address that somebody else is given ends deployments.
keep_lease() {
  local INTERFACE= ADDRESS= METHOD=
  . "$NET_ENV"
  [ "$METHOD" = dhcp ] || return 0
  # -b: where the server does not answer just now, it asks on in the background.
  DISKSWARM_KEEP=1 udhcpc -i "$INTERFACE" -r "$ADDRESS" -b -S -s "$NET_SCRIPT" $UDHCPC_FLAGS > /dev/null 2>&1
}

# The kernel first asks whether somebody has an IPv6 address already, and lets nothing be sent from it meanwhile.
wait_for_ipv6() {
  local tries
  for tries in 1 2 3 4 5; do
    ip -6 addr show dev "$1" | grep -q tentative || return 0
    sleep 1
  done
}

# An address that is given would do for every card: of several in $names the one is taken where somebody answers, or after two
# vain rounds the first with a link.
configure_static() {
  NET_ADDRESS=$IP_ADDRESS NET_PREFIX=$IP_PREFIX NET_ROUTER=$IP_GATEWAY NET_NEXT_SERVER=$IP_SERVER NET_DNS=$IP_DNS
  NET_NTP=$IP_NTP NET_HOSTNAME=$IP_HOSTNAME NET_MTU=$IP_MTU
  configure "$1" || { NET_REPORT="$NET_REPORT, $1 did not take the address $IP_ADDRESS/$IP_PREFIX"; return 1; }
  case $IP_ADDRESS in *:*) wait_for_ipv6 "$1" ;; esac
  if [ "$names" != "$1" ] && [ "$round" -lt 2 ] && [ -z "$VLAN_PARENT" ] && ! somebody_answers "$1"; then
    NET_REPORT="$NET_REPORT, nobody answers on $1 ($(mac_of "$1"))"
    ip addr flush dev "$1"
    ip route flush dev "$1"
    return 1
  fi
  write_env static "$1" && write_resolv_conf
}

# IPv6 by router advertisements: the kernel does it, all that is to be done is to wait.
configure_auto6() {
  local tries address
  echo 1 > "/proc/sys/net/ipv6/conf/$1/accept_ra" 2> /dev/null
  for tries in 1 2 3 4 5 6 7 8; do
    address=$(ip -6 addr show dev "$1" scope global 2> /dev/null | sed -n 's/^ *inet6 \([0-9a-f:]*\)\/\([0-9]*\).*/\1 \2/p' | head -n 1)
    if [ -n "$address" ]; then
      NET_ADDRESS=${address% *} NET_PREFIX=${address#* } NET_NEXT_SERVER=$IP_SERVER
      wait_for_ipv6 "$1"
      write_env static "$1" && write_resolv_conf
      return
    fi
    sleep 1
  done
  return 1
}

# One try on one interface.
try_interface() {
  case $IP_METHOD in
    dhcp) ask_dhcp "$1" ;;
    static) configure_static "$1" ;;
    auto6) configure_auto6 "$1" ;;
  esac
}

# The interface of `vlan=` above $VLAN_PARENT.
make_vlan() {
  [ ! -e "$NET_SYS/class/net/$VLAN_NAME" ] || return 0
  modprobe -q 8021q
  ip link add link "$VLAN_PARENT" name "$VLAN_NAME" type vlan id "$VLAN_ID" && ip link set "$VLAN_NAME" up
}

# Does the router, or where there is none the server, answer on $1? Where neither is known, it may.
somebody_answers() {
  local host=${IP_GATEWAY:-$IP_SERVER}
  if [ -z "$host" ]; then
    host=$(argument diskswarm.server)
    host=${host#*://} host=${host%%/*}
    case $host in \[*) host=${host#\[} host=${host%%\]*} ;; *) host=${host%%:*} ;; esac
  fi
  [ -n "$host" ] || return 0
  # Who lets no ping through says at least which card is his.
  ping -c 1 -W 2 -I "$1" "$host" > /dev/null 2>&1 || ip neigh show dev "$1" | grep -q "^$host .*lladdr"
}

# Waits up to $1 seconds until one of the others has a link: cards need some seconds to agree on a speed.
wait_for_link() {
  local seconds=$1 name
  shift
  while [ "$seconds" -gt 0 ]; do
    for name in "$@"; do ! has_link "$name" || return 0; done
    sleep 1
    seconds=$((seconds - 1))
  done
}

# One round over all cards that may be used. NET_REPORT is then what is to be said of those that did not work.
network_round() {
  local name names use
  NET_REPORT=
  coldplug
  names=$(candidates)
  if [ -z "$names" ]; then
    names=$(wired_interfaces)
    if [ -n "$names" ]; then
      NET_REPORT="no network card is the one that the command line names; there are$(for name in $names; do printf ' %s (%s)' "$name" "$(mac_of "$name")"; done)"
    else
      NET_REPORT="no network card with a driver: is its driver in this image (diskswarm initramfs --drivers all)?"
    fi
    sleep 2
    return 1
  fi
  for name in $names; do ip link set "$name" up; done
  wait_for_link 8 $names
  for name in $names; do
    if ! has_link "$name"; then
      NET_REPORT="$NET_REPORT, no link on $name ($(mac_of "$name"))"
      continue
    fi
    use=$name
    if [ -n "$VLAN_PARENT" ]; then
      make_vlan || { NET_REPORT="$NET_REPORT, no VLAN $VLAN_ID on $name: has this kernel 8021q?"; continue; }
      use=$VLAN_NAME
    fi
    debug "trying $IP_METHOD on $use"
    ! try_interface "$use" || return 0
    case $IP_METHOD in
      dhcp) NET_REPORT="$NET_REPORT, no DHCP server answered on $use ($(mac_of "$name"))" ;;
      auto6) NET_REPORT="$NET_REPORT, no router advertised on $use ($(mac_of "$name"))" ;;
    esac
  done
  NET_REPORT=${NET_REPORT#, }
  return 1
}

# Does not return before the network is up, unless it is not wanted.
network_up() {
  local wait=2 round=0 vlan INTERFACE= ADDRESS= PREFIX= ROUTER=
  ip link set lo up
  parse_ip "$(argument ip || echo dhcp)" || give_up "the kernel command line has ip=$(argument ip): $IP_PROBLEM"
  [ "$IP_METHOD" != off ] || { say "the network stays down (ip=off)"; return 0; }
  VLAN_NAME= VLAN_PARENT=
  if vlan=$(argument vlan); then
    VLAN_NAME=${vlan%%:*} VLAN_PARENT=${vlan#*:}
    VLAN_ID=$(vlan_id "$VLAN_NAME") && [ "$VLAN_PARENT" != "$vlan" ] ||
      give_up "the kernel command line has vlan=$vlan, which must be NAME:DEVICE as in vlan5:eth0"
  fi
  until network_round; do
    round=$((round + 1))
    say "$NET_REPORT; trying again in $wait s (round $round)"
    # Somebody who asked for a shell wants to see what is wrong with the network.
    if [ $round -eq 3 ] && is_on rd.shell; then run_shell; else sleep $wait; fi
    [ $wait -ge 30 ] || wait=$((wait * 2))
  done
  . "$NET_ENV"
  say "$INTERFACE has $ADDRESS/$PREFIX${ROUTER:+, router $ROUTER}"
}
