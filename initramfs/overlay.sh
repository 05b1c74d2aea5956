#!/diskswarm/root/bin/busybox sh
# The first program of a node whose initramfs is somebody else's, with ours appended (rdinit=/diskswarm/init). Of theirs
# only the drivers and their firmware are used. boot.sh is next, in a root folder that stands complete beside theirs.
export PATH=/diskswarm/root/bin
ROOT=/diskswarm/root

mount -t proc proc $ROOT/proc
mount -t sysfs sysfs $ROOT/sys
mount -t devtmpfs devtmpfs $ROOT/dev
mount -t tmpfs -o mode=755,nosuid,nodev,size=90% run $ROOT/run
mkdir -p $ROOT/run/diskswarm
# What says to programs that this machine is theirs to reboot.
: > $ROOT/run/diskswarm/initramfs
for folder in modules firmware; do
  for place in /usr/lib /lib; do
    [ -d "$place/$folder" ] || continue
    mkdir -p $ROOT/lib/$folder
    mount -o bind $place/$folder $ROOT/lib/$folder && break
  done
done
exec chroot $ROOT /lib/diskswarm/boot.sh
