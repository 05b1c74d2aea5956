/**
 * Which drivers a node gets. What it must have is decided here by name and folder, and is looked up in the kernel's own
 * lists: of a module that a kernel has built in, or does not have, nothing is to be done.
 */
import { readdirSync, readFileSync, type Dirent } from "node:fs";
import { join } from "node:path";
import { type ModuleTree, moduleName } from "./module-tree.ts";
import { buildFailure } from "./problem.ts";

export const DRIVER_SETS = ["minimal", "host", "all"] as const;
export type DriverSet = (typeof DRIVER_SETS)[number];

/** To get to the image and to a network at all. */
const BASE = ["loop", "squashfs", "xz_dec", "zstd_decompress", "af_packet", "8021q"];
/** For the first of two stages: an image that memory is too small for is read from the server (initramfs/attach.sh). */
const IMAGE_TRANSPORT = ["nvme_tcp"];
/** What the second half of a boot needs: a keyboard at the console, UEFI's variables, compressed swap in memory. */
const CONSOLE = ["i8042", "atkbd", "efivarfs", "virtio_console", "zram", "lzo_rle"];
/** Virtual machines of all kinds of QEMU, and a disk that any board made since 2012 can hold. */
const MINIMAL_NETWORK = ["virtio_net", "virtio_pci", "virtio_mmio", "e1000", "e1000e"];
const MINIMAL_STORAGE = ["virtio_blk", "virtio_scsi", "sd_mod", "nvme", "ahci", "virtio_rng"];
/** Looked into after a deployment: file systems are grown while they are mounted, a kernel is read for kexec. */
const MINIMAL_FILESYSTEMS = ["ext4", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8"];
const FILESYSTEMS = [...MINIMAL_FILESYSTEMS, "xfs", "btrfs", "ntfs3", "f2fs", "exfat"];

/** Folders below kernel/ whose modules drive wired networks. */
const NETWORK_FOLDERS = [
  ...["drivers/net/ethernet/", "drivers/net/phy/", "drivers/net/mdio/", "drivers/net/pcs/", "drivers/net/hyperv/"],
  ...["drivers/net/usb/", "drivers/net/vmxnet3/", "drivers/net/dsa/", "drivers/hv/"],
];
const NETWORK_MODULES = ["virtio_net", "xen_netfront", "net_failover", "fjes", "pci_hyperv"];
const STORAGE_FOLDERS = [
  ...["drivers/ata/", "drivers/nvme/host/", "drivers/scsi/", "drivers/message/fusion/", "drivers/mmc/"],
  ...["drivers/usb/storage/", "drivers/ufs/"],
];
const STORAGE_MODULES = ["virtio_blk", "xen_blkfront", "mtip32xx", "rsxx", "vmd", "sr_mod", "virtio_rng"];
/** Between the processor and the devices: without them no device shows itself. */
const BUS_FOLDERS = [
  "drivers/usb/host/",
  "drivers/usb/core/",
  "drivers/usb/common/",
  "drivers/virtio/",
  "drivers/hid/usbhid/",
];
const BUS_MODULES = ["hid", "hid_generic", "usbhid", "hid_apple", "hid_hyperv", "hyperv_keyboard", "i2c_hid"];
/** Boards without a BIOS describe themselves: clocks, power and pins have drivers there that come first. */
const BOARD_FOLDERS = [
  ...["drivers/clk/", "drivers/pinctrl/", "drivers/regulator/", "drivers/reset/", "drivers/phy/", "drivers/gpio/"],
  ...[
    "drivers/bus/",
    "drivers/soc/",
    "drivers/mfd/",
    "drivers/mailbox/",
    "drivers/pci/",
    "drivers/dma/",
    "drivers/usb/dwc3/",
  ],
  ...[
    "drivers/usb/dwc2/",
    "drivers/usb/chipidea/",
    "drivers/usb/musb/",
    "drivers/i2c/busses/",
    "drivers/spi/",
    "drivers/firmware/",
  ],
];
/** In those folders, but for tests, for other networks than a wired one, or for what is no disk of the machine. */
const LEFT_OUT =
  /\/(scsi_debug|nvme[-_](rdma|fc|loop)|.*_?(target|tgt)|libfcoe|fcoe|bnx2fc|bnx2i|cxgb[34]i|iscsi_tcp|be2iscsi|qedi|qedf|mlxsw.*|mlx5_vfio.*|.*wwan.*|qmi_wwan|cdc_mbim|huawei_cdc_ncm|sierra_net|hso|cdc-phonet|ipheth|kalmia|gl620a|.*_test|.*kunit)\.ko/;

/** Hardware whose drivers are wanted where a host's own are. */
const HOST_FOLDERS = [
  ...NETWORK_FOLDERS,
  ...STORAGE_FOLDERS,
  ...BUS_FOLDERS,
  ...BOARD_FOLDERS,
  "drivers/block/",
  "drivers/net/",
  "drivers/input/",
  "drivers/char/hw_random/",
];
const WIRELESS = /^kernel\/drivers\/net\/(wireless|wwan|can|hamradio|ieee802154)\//;

export interface DriverChoice {
  /** Module paths below the tree's folder, dependencies included. */
  readonly paths: readonly string[];
  /** What the first of two stages needs. */
  readonly firstStagePaths: readonly string[];
}

/** Chooses. `sys` is what hardware this machine has (for `host`). Throws a Failure where loop or squashfs are nowhere. */
export function chooseDrivers(tree: ModuleTree, set: DriverSet, sys = "/sys"): DriverChoice {
  for (const name of ["loop", "squashfs"])
    if (!tree.has(name) && !tree.isBuiltin(name))
      throw buildFailure(
        "modules",
        `${tree.folder} has no module ${name}, and the kernel has it not built in: take another kernel`,
      );
  const network = [...BASE, ...networkOf(tree, set, sys)];
  const rest = [...CONSOLE, ...storageOf(tree, set, sys), ...(set === "minimal" ? MINIMAL_FILESYSTEMS : FILESYSTEMS)];
  return {
    paths: tree.withDependencies([...network, ...rest]),
    firstStagePaths: tree.withDependencies([...network, ...IMAGE_TRANSPORT]),
  };
}

function networkOf(tree: ModuleTree, set: DriverSet, sys: string): string[] {
  if (set === "minimal") return MINIMAL_NETWORK;
  if (set === "all")
    return [
      ...MINIMAL_NETWORK,
      ...NETWORK_MODULES,
      ...inFolders(tree, [...NETWORK_FOLDERS, ...BUS_FOLDERS]),
      ...BUS_MODULES,
      ...boards(tree),
    ];
  return hostDrivers(tree, sys).filter((name) => {
    const path = tree.pathOf(name)!;
    return !within(path, STORAGE_FOLDERS) && !within(path, ["drivers/block/"]);
  });
}

function storageOf(tree: ModuleTree, set: DriverSet, sys: string): string[] {
  if (set === "minimal") return MINIMAL_STORAGE;
  // A SCSI, ATA or USB disk is driven by sd_mod, whatever its controller; it shows itself only after that is loaded.
  if (set === "host") return ["sd_mod", "uas", "usb_storage", ...hostDrivers(tree, sys)];
  return [...MINIMAL_STORAGE, ...STORAGE_MODULES, ...inFolders(tree, STORAGE_FOLDERS)];
}

function inFolders(tree: ModuleTree, folders: readonly string[]): string[] {
  return tree.paths.filter((path) => within(path, folders) && !LEFT_OUT.test(path)).map(moduleName);
}

function within(path: string, folders: readonly string[]): boolean {
  return folders.some((folder) => path.startsWith(`kernel/${folder}`));
}

/** Only where the kernel is for boards that describe themselves by a device tree. */
function boards(tree: ModuleTree): string[] {
  return tree.paths.some((path) => path.startsWith("kernel/arch/arm64/")) ? inFolders(tree, BOARD_FOLDERS) : [];
}

/** Of every device of this machine, the modules that are for it and are of a kind that a node uses. */
function hostDrivers(tree: ModuleTree, sys: string): string[] {
  const names = new Set<string>();
  for (const modalias of modaliases(join(sys, "devices")))
    for (const name of tree.modulesFor(modalias)) {
      const path = tree.pathOf(name);
      if (path !== null && within(path, HOST_FOLDERS) && !WIRELESS.test(path)) names.add(name);
    }
  return [...names];
}

function modaliases(folder: string): Set<string> {
  const found = new Set<string>();
  const visit = (path: string): void => {
    for (const entry of entriesOf(path)) {
      const below = join(path, entry.name);
      if (entry.isDirectory()) visit(below);
      else if (entry.name === "modalias") found.add(readFileSync(below, "latin1").trim());
    }
  };
  visit(folder);
  return found;
}

function entriesOf(path: string): Dirent[] {
  try {
    return readdirSync(path, { withFileTypes: true });
  } catch (error) {
    // A device that was unplugged meanwhile.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}
