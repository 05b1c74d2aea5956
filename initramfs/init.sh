#!/bin/sh
# The first program on a node (/init of the initramfs). It gets to the read-only image that holds everything else, which
# lies beside it (one stage) or on the server (two stages), where it stays if memory is little, and goes there: boot.sh is
# next. What was only needed up to here is given back to memory.
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=755,nosuid,nodev,size=90% run /run
mkdir -p /run/diskswarm
# What says to programs that this machine is theirs to reboot.
: > /run/diskswarm/initramfs
. /lib/diskswarm/common.sh

IMAGE=/root.squashfs
! is_on rd.break || run_shell

if [ ! -e $IMAGE ]; then
  . /lib/diskswarm/network.sh
  . /lib/diskswarm/fetch.sh
  . /lib/diskswarm/attach.sh
  network_up
  find_image
  if attach_image; then
    IMAGE=$ATTACHED
  else
    # A ramfs, since a tmpfs is swapped: what is packed already would fill the swap in zram to no gain.
    mkdir /run/diskswarm/image
    mount -t ramfs image /run/diskswarm/image
    IMAGE=/run/diskswarm/image/root.squashfs
    fetch_image $IMAGE
  fi
fi

modprobe -q -a loop squashfs 2> /dev/null
mkdir -p /newroot
mount -t squashfs -o ro $IMAGE /newroot 2> /run/diskswarm/mount.log ||
  give_up "cannot mount the image: $(tail -n 1 /run/diskswarm/mount.log). Does this kernel have loop and squashfs, and memory enough?"
[ -x /newroot/lib/diskswarm/boot.sh ] || give_up "the image has no /lib/diskswarm/boot.sh: build it again"
# Mounted, so a file's name is not needed any more; its memory stays as long as it is mounted.
[ -b "$IMAGE" ] || rm $IMAGE
for folder in proc sys dev run; do mount -o move /$folder /newroot/$folder; done
exec switch_root /newroot /lib/diskswarm/boot.sh
