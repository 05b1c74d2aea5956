/** The shell scripts around the executable (folder initramfs/), which are part of it: one file makes everything. */
import attachImage from "../../../initramfs/attach.sh" with { type: "text" };
import boot from "../../../initramfs/boot.sh" with { type: "text" };
import common from "../../../initramfs/common.sh" with { type: "text" };
import fetchImage from "../../../initramfs/fetch.sh" with { type: "text" };
import hotplug from "../../../initramfs/hotplug.sh" with { type: "text" };
import init from "../../../initramfs/init.sh" with { type: "text" };
import network from "../../../initramfs/network.sh" with { type: "text" };
import overlay from "../../../initramfs/overlay.sh" with { type: "text" };
import udhcpc from "../../../initramfs/udhcpc.sh" with { type: "text" };

export const SCRIPTS = { attachImage, boot, common, fetchImage, hotplug, init, network, overlay, udhcpc } as const;
