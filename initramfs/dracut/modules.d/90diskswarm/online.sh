#!/bin/sh
# Read by dracut's queue each time the devices have settled. dracut runs /sbin/diskswarmroot when a card is up, except
# where systemd-networkd is what brings it up: then that is seen here.

if [ ! -e /run/diskswarm ] && [ ! -x /sbin/ifup ] && command -v networkctl > /dev/null; then
    for state in /run/systemd/netif/links/*; do
        grep -qs '^OPER_STATE=routable' "$state" || continue
        lease=/run/systemd/netif/leases/${state##*/}
        # glibc looks for names here, and nobody else writes it.
        sed -n 's/^DOMAINNAME=/search /p' "$lease" > /etc/resolv.conf 2> /dev/null
        for server in $(sed -n 's/^DNS=//p' "$state"); do echo "nameserver $server" >> /etc/resolv.conf; done
        for netif in /sys/class/net/*; do
            [ "$(cat "$netif/ifindex")" != "${state##*/}" ] || /sbin/diskswarmroot "${netif##*/}"
        done
    done
fi
