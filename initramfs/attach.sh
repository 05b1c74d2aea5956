# Two stages on a machine with little memory: the image stays at the server and is read from there as it is needed, by the
# kernel's own NVMe over TCP. Read by `.` in the first stage, after fetch.sh.

# What a node has to have beside the image to get on, in KiB: measured (docs/decisions/0025).
MEMORY_BESIDE_IMAGE_KIB=${MEMORY_BESIDE_IMAGE_KIB-73728}
# Machines with more than this do not ask how large the image is.
MEMORY_AMPLE_KIB=${MEMORY_AMPLE_KIB-262144}
# As src/boot/image-name.ts has it.
IMAGE_NAME=nqn.2026-11.diskswarm:image
# For how long a node waits for a server that is gone or a cable that is out before its image is lost to it, in seconds;
# how often it looks in the meantime, and how often it says that it is there.
IMAGE_LOSS_MAX=600
IMAGE_RETRY=2
IMAGE_ALIVE=15
# Without the image the kernel panics: then the machine starts again, and continues with what is on its disk.
PANIC_REBOOT=30
ATTACH_LOG=${ATTACH_LOG-/run/diskswarm/attach.log}

# Makes the image a block device, ATTACHED, where it would not fit into memory. Status 1: it fits, or this cannot be done.
attach_image() {
  local total offer bytes wait=2
  total=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)
  [ "$total" -lt $MEMORY_AMPLE_KIB ] || return 1
  while :; do
    if offer=$(timeout 20 wget -q -O - "$IMAGE_SERVER/boot/root.nvme" 2> "$ATTACH_LOG"); then
      # The port and the length in bytes.
      bytes=${offer#* } ATTACH_PORT=${offer%% *}
      case $offer in *[!0-9\ ]* | ' '* | *' ') bytes= ;; esac
      [ -n "$bytes" ] && [ "$bytes" != "$offer" ] || { say "$IMAGE_SERVER does not say how its image is read: fetching it"; return 1; }
      [ $((total - bytes / 1024)) -lt $MEMORY_BESIDE_IMAGE_KIB ] || return 1
      modprobe -q nvme_tcp
      [ -e /dev/nvme-fabrics ] || { say "this kernel has no nvme_tcp, so the image has to fit into memory"; return 1; }
      attach_once && return 0
    else
      ATTACH_PROBLEM=$(tail -n 1 "$ATTACH_LOG")
      case $ATTACH_PROBLEM in *' 404 '*) return 1 ;; esac
    fi
    say "cannot read the image from $IMAGE_SERVER: ${ATTACH_PROBLEM#wget: }; trying again in $wait s"
    sleep $wait
    [ $wait -ge 30 ] || wait=$((wait * 2))
  done
}

# One try. Status 1, with ATTACH_PROBLEM set, where the image is not there, or is another one.
attach_once() {
  local address found disk
  address=$(server_address) || { ATTACH_PROBLEM="its name has no address"; return 1; }
  { echo "transport=tcp,traddr=$address,trsvcid=$ATTACH_PORT,nqn=$IMAGE_NAME:$IMAGE_SHA256,nr_io_queues=1,queue_size=16,ctrl_loss_tmo=$IMAGE_LOSS_MAX,reconnect_delay=$IMAGE_RETRY,keep_alive_tmo=$IMAGE_ALIVE" > /dev/nvme-fabrics; } 2> "$ATTACH_LOG" ||
    { ATTACH_PROBLEM="port $ATTACH_PORT, $(sed 's/.*: //' "$ATTACH_LOG") (is it the root.squashfs of this initrd.img, and does a firewall let the port through?)"; return 1; }
  disk=$(attached_disk) || { ATTACH_PROBLEM="no disk showed itself"; detach_image; return 1; }
  say "the image stays at the server, since it is too large for this machine's memory; checking it"
  found=$(sha256sum "/dev/$disk" | cut -d ' ' -f 1)
  if [ "$found" != "$IMAGE_SHA256" ]; then
    ATTACH_PROBLEM="what is read has the SHA-256 $found instead of $IMAGE_SHA256"
    detach_image
    return 1
  fi
  # From here on only what is needed, and not what lies around it.
  echo 0 > "/sys/block/$disk/queue/read_ahead_kb"
  [ "$(cat /proc/sys/kernel/panic)" != 0 ] || echo $PANIC_REBOOT > /proc/sys/kernel/panic
  ATTACHED=/dev/$disk
}

detach_image() {
  local path
  for path in /sys/class/nvme/nvme*; do
    [ "$(cat "$path/subsysnqn")" != "$IMAGE_NAME:$IMAGE_SHA256" ] || echo 1 > "$path/delete_controller"
  done
}

# Waits for the disk that is the image, and says its name.
attached_disk() {
  local tries path
  for tries in 1 2 3 4 5 6 7 8 9 10; do
    for path in /sys/block/nvme*; do
      # A hidden one is a path to a disk with another name.
      [ "$(cat "$path/device/subsysnqn" 2> /dev/null)" = "$IMAGE_NAME:$IMAGE_SHA256" ] && [ "$(cat "$path/hidden")" = 0 ] &&
        [ -b "/dev/${path##*/}" ] && echo "${path##*/}" && return 0
    done
    sleep 1
  done
  return 1
}

# The kernel wants an address: that of the server's name, where it has one.
server_address() {
  local host=${IMAGE_SERVER#http://}
  case $host in
    \[*) host=${host#\[} && echo "${host%%\]*}" && return ;;
  esac
  host=${host%:*}
  case $host in
    *[!0-9.]*) host=$(nslookup "$host" 2> /dev/null | sed -n '/^Name:/,$s/^Address[^:]*: *//p' | head -n 1) ;;
  esac
  [ -n "$host" ] && echo "$host"
}
