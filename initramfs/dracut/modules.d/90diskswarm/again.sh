#!/bin/sh
# Read by dracut's queue when it has waited for long. It asks for an address once: where nobody answered (a switch that
# takes its time, a server that is switched on later) it is asked again, for ever.

if [ ! -e /run/diskswarm ]; then
    warn "diskswarm: no network yet; trying again"
    if [ -x /sbin/ifup ]; then
        for netif in /sys/class/net/*; do
            [ ! -e "$netif/device" ] || /sbin/ifup "${netif##*/}"
        done
    fi
    # dracut's count of its turns, which would end with a shell.
    # shellcheck disable=SC2034
    main_loop=0
fi
