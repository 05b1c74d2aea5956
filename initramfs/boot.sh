#!/bin/sh
# PID 1 of a node once it is in the read-only image: drivers, network, then `diskswarm init`, which plans and deploys.
# It never ends, since the kernel panics without PID 1.
# Programs of others before busybox's of the same name.
export PATH=/usr/bin:/usr/sbin:/bin:/sbin HOME=/root TERM=linux
. /lib/diskswarm/common.sh
. /lib/diskswarm/network.sh

SMALL_MEMORY_KIB=262144

mount -t tmpfs -o mode=1777,nosuid,nodev tmp /tmp
mount -t tmpfs -o mode=755,nosuid,nodev mnt /mnt
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm /dev/shm

# With little memory, what a program has not touched for a while is kept compressed: a third of its size.
memory=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)
if [ "$memory" -lt $SMALL_MEMORY_KIB ] && modprobe -q zram; then
  echo "$((memory / 2))K" > /sys/block/zram0/disksize && mkswap /dev/zram0 > /dev/null && swapon /dev/zram0
  # Reading it costs less than reading a page of the image, which has to be unpacked in whole blocks.
  echo 150 > /proc/sys/vm/swappiness
  echo 0 > /proc/sys/vm/page-cluster
  # Of the image only what is needed, and not what lies around it.
  for loop in /sys/block/loop*; do echo 0 > "$loop/queue/read_ahead_kb"; done
  # The optimizing compiler takes 5 MB, and a node's network is what it waits for.
  export BUN_JSC_useDFGJIT=0
fi

coldplug
# What shows itself later (USB, a controller that takes its time) gets its driver then.
uevent /lib/diskswarm/hotplug.sh > /dev/null 2>&1 &
# UEFI's boot entries are what efibootmgr changes.
[ ! -d /sys/firmware/efi ] || { modprobe -q efivarfs; mount -t efivarfs efivarfs /sys/firmware/efi/efivars 2> /dev/null; }

[ -e "$NET_ENV" ] || network_up
[ ! -e "$NET_ENV" ] || keep_lease

while :; do
  debug "$(sed -n 's/:  */ /; /^MemTotal\|^MemFree\|^MemAvailable/p' /proc/meminfo | tr '\n' ' ')"
  # Its own session with the console as its terminal, so that Ctrl-C reaches it.
  setsid -c /usr/bin/diskswarm init < /dev/console > /dev/console 2>&1
  status=$?
  [ $status -ne 0 ] || give_up "diskswarm init has ended, and did not reboot the machine"
  say "diskswarm init ended with $status before its work was done; starting it again in 10 s"
  if is_on rd.shell; then run_shell; else sleep 10; fi
done
