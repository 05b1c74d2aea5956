/**
 * A copy of this system that may be changed: an overlay in memory, in a mount namespace of its own, gone when its
 * command has ended. Packages that would be in each other's way here (dracut and initramfs-tools are) are installed there.
 */
import { run } from "./process.ts";
import type { Scope } from "./scope.ts";
import { needTools } from "./tools.ts";

export interface SystemCopyOptions {
  /** Debian packages that are installed first. */
  readonly packages: readonly string[];
  /** Run outside before `inside`, with the copy's root as $1: to put files into it. */
  readonly prepare: string;
  /** Run inside. */
  readonly inside: string;
  /** A file that `inside` makes, and where it is wanted. */
  readonly result: { readonly from: string; readonly to: string };
}

/** Runs the two scripts; fails with what they said. */
export function inSystemCopy(scope: Scope, { packages, prepare, inside, result }: SystemCopyOptions): void {
  needTools("unshare", "apt-get");
  const base = scope.ramDir();
  const script = `
    set -eu
    base=$1
    mount -t tmpfs tmpfs "$base"
    mkdir "$base/upper" "$base/work" "$base/root"
    root=$base/root
    mount -t overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" overlay "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t sysfs sysfs "$root/sys"
    for folder in run tmp var/tmp; do mkdir -p "$root/$folder"; mount -t tmpfs tmpfs "$root/$folder"; done
    # Nothing of it shall start as a service of this machine.
    printf '#!/bin/sh\\nexit 101\\n' > "$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    export DEBIAN_FRONTEND=noninteractive
    install() { chroot "$root" apt-get install -q -y --no-install-recommends ${packages.join(" ")}; }
    install || { chroot "$root" apt-get update -q; install; }
    set -- "$root"
    ${prepare}
    chroot "$root" sh -c '${inside}'
    cp "$root${result.from}" '${result.to}'`;
  run(["unshare", "--mount", "sh", "-c", script, "sh", base]);
}
