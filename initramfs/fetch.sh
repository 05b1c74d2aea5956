# Two stages: fetches the image from the server and checks it. Read by `.` in the first stage.

# How long a transfer may stand still, in seconds.
FETCH_IDLE_MAX=30
FETCH_LOG=${FETCH_LOG-/run/diskswarm/wget.log}

# A ramfs takes whatever is written to it, and the kernel panics when it has nothing left.
memory_to_fill_kib() {
  local available
  available=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)
  echo $((available * 9 / 10))
}

# The server's URL without a path: named on the command line, or whoever told the machine by DHCP where to boot from.
server_origin() {
  local server NEXT_SERVER= BOOT_FILE=
  [ ! -e "$NET_ENV" ] || . "$NET_ENV"
  if ! server=$(argument diskswarm.server); then
    case $BOOT_FILE in
      http://*) server=$BOOT_FILE ;;
      *) server=$NEXT_SERVER ;;
    esac
  fi
  case $server in
    '') return 1 ;;
    http://*)
      server=${server#http://}
      echo "http://${server%%/*}"
      ;;
    # A host by itself, with or without a port.
    \[*\]:*) echo "http://$server" ;;
    \[*\] | *:*:*) server=${server#\[} && echo "http://[${server%\]}]:6969" ;;
    *:*) echo "http://$server" ;;
    *) echo "http://$server:6969" ;;
  esac
}

# Fetches $1 to $2, going on where an earlier try ended. Status 1, with FETCH_PROBLEM set, where it did not get all of it.
fetch_once() {
  local pid size=0 now idle=0 ticks=0
  # ulimit counts in blocks of 512 bytes.
  { ulimit -f $((FETCH_KIB_MAX * 2)) && exec wget -c -q -O "$2" "$1"; } 2> "$FETCH_LOG" &
  pid=$!
  while kill -0 $pid 2> /dev/null; do
    sleep 1
    now=$(stat -c %s "$2" 2> /dev/null || echo 0)
    if [ "$now" = "$size" ]; then idle=$((idle + 1)); else idle=0; fi
    size=$now ticks=$((ticks + 1))
    [ $((ticks % 10)) != 0 ] || say "fetching $1: $((size / 1048576)) MiB so far"
    [ $idle -lt $FETCH_IDLE_MAX ] || kill $pid 2> /dev/null
  done
  wait $pid && return
  FETCH_PROBLEM=$(tail -n 1 "$FETCH_LOG")
  FETCH_PROBLEM=${FETCH_PROBLEM#wget: }
  [ $idle -lt $FETCH_IDLE_MAX ] || FETCH_PROBLEM="nothing came for $FETCH_IDLE_MAX s"
  if [ "$(stat -c %s "$2" 2> /dev/null || echo 0)" -ge $((FETCH_KIB_MAX * 1024)) ]; then
    rm -f "$2"
    FETCH_PROBLEM="it is larger than the $((FETCH_KIB_MAX / 1024)) MiB that this machine has room for"
  fi
  return 1
}

# Sets IMAGE_SERVER, a URL without a path, and IMAGE_SHA256, the only image that belongs to this first stage.
find_image() {
  IMAGE_SERVER=$(server_origin) || give_up "no server is known: name it with diskswarm.server=http://SERVER:6969 on the kernel command line, or by DHCP's next-server"
  case $IMAGE_SERVER in http://?*) ;; *) give_up "diskswarm.server=$(argument diskswarm.server) is no http URL" ;; esac
  IMAGE_SHA256=$(argument diskswarm.sha256) || IMAGE_SHA256=$(cat /lib/diskswarm/root.sha256)
}

# Fetches the image to $1, however long the server takes to come up. Only what has the right hash is used.
fetch_image() {
  local url=$IMAGE_SERVER/boot/root.squashfs found wait=2
  FETCH_KIB_MAX=$(memory_to_fill_kib)
  say "fetching $url"
  while :; do
    if fetch_once "$url" "$1"; then
      found=$(sha256sum "$1" | cut -d ' ' -f 1)
      [ "$found" != "$IMAGE_SHA256" ] || return 0
      rm -f "$1"
      FETCH_PROBLEM="it has the SHA-256 $found where $IMAGE_SHA256 belongs to this initrd.img: take both from the same run of diskswarm initramfs"
    fi
    say "cannot use $url: ${FETCH_PROBLEM:-wget failed}; trying again in $wait s"
    sleep $wait
    [ $wait -ge 30 ] || wait=$((wait * 2))
  done
}
