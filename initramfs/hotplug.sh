#!/bin/sh
# What busybox's uevent runs for each event of the kernel: loads the driver of what was plugged in.
[ "$ACTION" = add ] && [ -n "$MODALIAS" ] && exec modprobe -q -b "$MODALIAS"
exit 0
