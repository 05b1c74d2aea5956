#!/bin/bash
# dracut module: an initramfs that images its machine when the kernel command line says so (diskswarm.server= or
# diskswarm.torrent=), and boots as ever when it does not. `dracut --add diskswarm`; DISKSWARM=FILE names the executable.

# dracut's PATH lacks these folders.
executable() {
    echo "${DISKSWARM:-$(PATH=$PATH:/usr/local/bin:/usr/local/sbin command -v diskswarm)}"
}

check() {
    [[ -x $(executable) ]] || {
        derror "diskswarm: no executable in PATH, and DISKSWARM=FILE names none"
        return 1
    }
    # Only where it was asked for: it is 115 MB.
    return 255
}

depends() {
    echo network
}

# Machines that are imaged differ from the one that makes this: every disk and every network card.
installkernel() {
    hostonly='' instmods "=drivers/ata" "=drivers/nvme" "=drivers/scsi" "=drivers/message/fusion" "=drivers/mmc" \
        "=drivers/virtio" "=drivers/block" "=drivers/net/ethernet" "=drivers/net/phy" virtio_net hv_netvsc hv_storvsc \
        vmxnet3 xen-netfront sd_mod =drivers/usb/storage =drivers/usb/host loop
}

install() {
    inst "$(executable)" /usr/bin/diskswarm
    # dracut strips whatever may be executed, which takes from an executable that Bun made what is not Bun's. The
    # handler makes it executable again.
    chmod 644 "$initdir/usr/bin/diskswarm"
    inst_multiple date mkdir chmod
    # What `diskswarm init` works without, with less: a larger disk's backup GPT, other systems to start, UEFI's entries.
    inst_multiple -o sfdisk sgdisk blkid kexec efibootmgr setsid mdadm
    # Certificates, for a server with https.
    inst_multiple -o /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt
    inst_hook cmdline 90 "$moddir/parse-diskswarm.sh"
    inst_script "$moddir/diskswarmroot.sh" /sbin/diskswarmroot
    inst_simple "$moddir/online.sh" /lib/diskswarm-online.sh
    inst_simple "$moddir/again.sh" /lib/diskswarm-again.sh
    dracut_need_initqueue
}
