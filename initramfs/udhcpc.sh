#!/bin/sh
# What busybox's udhcpc runs at each event: takes a lease into the interface and writes it down.
. /lib/diskswarm/common.sh
. /lib/diskswarm/network.sh

case $1 in
  bound | renew)
    NET_ADDRESS=$ip NET_PREFIX=${mask:-32} NET_DOMAIN=${search:-$domain} NET_DHCP_SERVER=$serverid
    NET_LEASE_SECONDS=$lease NET_BOOT_FILE=${bootfile:-$boot_file}
    # Servers say where to boot from in the packet's own field, or in option 66, or in both.
    NET_NEXT_SERVER=$siaddr
    case $NET_NEXT_SERVER in '' | 0.0.0.0) NET_NEXT_SERVER=${tftp:-$sname} ;; esac
    # What ip= says besides comes first, as the kernel has it. It was looked at before anybody was asked.
    parse_ip "$(argument ip || echo dhcp)"
    NET_NEXT_SERVER=${IP_SERVER:-$NET_NEXT_SERVER} NET_HOSTNAME=${IP_HOSTNAME:-$hostname} NET_MTU=${IP_MTU:-$mtu}
    NET_DNS=${IP_DNS:-$dns} NET_NTP=${IP_NTP:-$ntpsrv} NET_ROUTER=${IP_GATEWAY:-$router}
    NET_STATIC_ROUTES=$staticroutes
    [ -z "$IP_GATEWAY" ] || NET_STATIC_ROUTES=
    configure "$interface" && write_env dhcp "$interface" && write_resolv_conf
    ;;
  deconfig)
    # udhcpc says so when it starts, too. An address in use is left: a deployment goes on if the server comes back.
    [ -n "$DISKSWARM_KEEP" ] || ip addr flush dev "$interface"
    ;;
  nak | leasefail)
    [ -z "$DISKSWARM_KEEP" ] || say "the DHCP lease of $interface was not renewed (${message:-no answer}); its address is kept"
    ;;
esac
