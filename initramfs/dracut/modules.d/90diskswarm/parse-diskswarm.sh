#!/bin/sh
# Read by dracut when it looks at the kernel command line: with diskswarm.* the "root" is a deployment. dracut then brings
# the network up as `ip=`, `vlan=` and `BOOTIF=` say, and runs /sbin/diskswarmroot on the interface that is up.

if getarg diskswarm.server= > /dev/null || getarg diskswarm.torrent= > /dev/null; then
    # Read in dracut's shell by this name.
    # shellcheck disable=SC2034
    root=diskswarm rootok=1 netroot=diskswarm
    if ! getarg ip= > /dev/null && ! getarg vlan= > /dev/null && ! getarg bond= > /dev/null; then
        echo ip=dhcp > /etc/cmdline.d/91-diskswarm.conf
        # systemd-networkd reads the kernel's own command line alone, and does nothing for a card that nobody mentions.
        mkdir -p /run/systemd/network
        printf '[Match]\nType=ether\nKind=!*\n[Network]\nDHCP=yes\n' > /run/systemd/network/99-diskswarm.network
    fi
    # What is on the disk shall not be started, or the disk would be in use.
    echo rd.neednet=1 rd.auto=0 rd.lvm=0 rd.md=0 rd.dm=0 rd.luks=0 noresume > /etc/cmdline.d/90-diskswarm.conf
    # No disk is waited for, and dracut does not go on from here: the handler reboots.
    rm -f "$hookdir"/initqueue/finished/devexists-*.sh
    echo false > "$hookdir/initqueue/finished/diskswarm.sh"
    # What dracut does not do for every kind of network.
    echo ". /lib/diskswarm-online.sh" > "$hookdir/initqueue/settled/diskswarm.sh"
    echo ". /lib/diskswarm-again.sh" > "$hookdir/initqueue/timeout/diskswarm.sh"
fi
