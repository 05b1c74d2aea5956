#!/bin/sh
# dracut calls it with an interface that is up. `diskswarm init` ends by rebooting the machine, or whatever was wanted;
# where it comes back, there is nothing that could be booted.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
. /lib/dracut-lib.sh

netif=$1
# Once: dracut may call it for each card.
mkdir /run/diskswarm 2> /dev/null || exit 0
: > /run/diskswarm/initramfs
chmod 755 /usr/bin/diskswarm

# What DHCP said, as dhclient left it here.
# shellcheck disable=SC1090
[ ! -e "/tmp/dhclient.$netif.dhcpopts" ] || . "/tmp/dhclient.$netif.dhcpopts"
{
    echo "INTERFACE='$netif'"
    # shellcheck disable=SC2154
    case $new_next_server$new_filename in
        *\'*) ;;
        *) echo "NEXT_SERVER='$new_next_server'" && echo "BOOT_FILE='$new_filename'" ;;
    esac
} > /run/diskswarm/network.env

while :; do
    HOME=/root TMPDIR=/tmp /usr/bin/diskswarm init < /dev/console > /dev/console 2>&1
    status=$?
    warn "diskswarm init ended with $status"
    if [ $status -eq 0 ] || getargbool 0 rd.shell; then
        emergency_shell "diskswarm init ended with $status; leave this shell to start it again"
    else
        sleep 10
    fi
done
