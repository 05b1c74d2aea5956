# What every script of the initramfs uses: messages on all consoles, the kernel's command line, modules, and what to do
# where nothing works. Read by `.`; needs busybox, /proc, /sys and /dev.

# Lab machines have a screen, servers a serial line: a message goes to every console that the kernel prints to.
say() {
  [ -n "$CONSOLES" ] || CONSOLES=$(cat /sys/class/tty/console/active 2> /dev/null)
  for console in ${CONSOLES:-console}; do
    # A console that was named and is not there, or that nobody reads, must not end the script.
    { echo "diskswarm: $*" > "/dev/$console"; } 2> /dev/null || :
  done
}

debug() {
  ! is_on diskswarm.debug || say "$@"
}

# The value of the last NAME=VALUE of the command line, without the quotes around it; status 1 where there is none.
argument() {
  local word value= status=1
  set -f
  for word in ${CMDLINE-$(cat /proc/cmdline)}; do
    word=${word#\"}
    case $word in
      "$1="*)
        value=${word#*=}
        value=${value#\"}
        value=${value%\"}
        status=0
        ;;
    esac
  done
  set +f
  [ $status -ne 0 ] || echo "$value"
  return $status
}

# Is the switch NAME, NAME=1 or NAME=yes on the command line?
is_on() {
  local word status=1
  set -f
  for word in ${CMDLINE-$(cat /proc/cmdline)}; do
    case $word in
      "$1" | "$1=1" | "$1=yes" | "$1=on") status=0 ;;
      "$1=0" | "$1=no" | "$1=off") status=1 ;;
    esac
  done
  set +f
  return $status
}

# Loads the drivers of whatever hardware shows itself. A bus's driver brings forth devices that want drivers in turn:
# until nothing new shows.
coldplug() {
  local before= now pass
  for pass in 1 2 3 4 5 6; do
    now=$(find /sys/devices -name modalias -exec cat {} + 2> /dev/null | sort -u)
    [ "$now" != "$before" ] || return 0
    # Most hardware wants no driver of ours: what is not found is not worth a word.
    echo "$now" | xargs modprobe -a -q -b 2> /dev/null
    before=$now
  done
}

# A shell on every console at once. Goes on when one of them is left.
run_shell() {
  local console pids=
  say "a shell for you; leave it by 'exit' to go on"
  for console in ${CONSOLES:-console}; do
    # Its own session, with that console as its terminal: Ctrl-C then ends what runs in it.
    setsid -c sh -i < "/dev/$console" > "/dev/$console" 2>&1 &
    pids="$pids $!"
  done
  # A console that is not there ends its shell at once and must not end the others'.
  sleep 1
  local alive=
  for pid in $pids; do
    ! kill -0 "$pid" 2> /dev/null || alive="$alive $pid"
  done
  while [ -n "$alive" ]; do
    for pid in $alive; do
      # What else runs behind this script (the drivers of what is plugged in) never ends: it is not waited for.
      kill -0 "$pid" 2> /dev/null || { kill -HUP $pids 2> /dev/null; wait $pids; return 0; }
    done
    sleep 1
  done
}

# Nothing can be done any more. PID 1 must not end, or the kernel panics and takes the message with it.
give_up() {
  say "$1"
  case $(argument rd.emergency) in
    reboot) say "rebooting in 30 s (rd.emergency=reboot)"; sleep 30; sync; reboot -f ;;
    poweroff) say "switching off in 30 s (rd.emergency=poweroff)"; sleep 30; sync; poweroff -f ;;
    halt) say "halted (rd.emergency=halt)"; sync; halt -f ;;
  esac
  while :; do
    if is_on rd.shell; then run_shell; else sleep 300; fi
    say "$1; rd.shell on the kernel command line gives a shell here, rd.emergency=reboot starts again by itself"
  done
}
