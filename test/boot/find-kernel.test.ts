/** What distributions write for their boot loaders, and what a kexec makes of it. */
import { describe, expect, test } from "bun:test";
import { findKernel } from "../../src/boot/init/find-kernel.ts";
import { installed } from "./installed.ts";

const GRUB = `
if [ -s $prefix/grubenv ]; then
  load_env
fi
set default="0"
set vt_handoff=
function gfxmode { set gfxpayload="\${1}" }
menuentry 'Debian GNU/Linux' --class debian --class gnu-linux $menuentry_id_option 'gnulinux-simple-1234' {
	load_video
	insmod gzio
	search --no-floppy --fs-uuid --set=root 1111-2222
	echo	'Loading Linux 6.1.0-18-amd64 ...'
	linux	/boot/vmlinuz-6.1.0-18-amd64 root=UUID=1111-2222 ro  quiet $vt_handoff
	echo	'Loading initial ramdisk ...'
	initrd	/boot/initrd.img-6.1.0-18-amd64
}
submenu 'Advanced options' {
	menuentry 'older' {
		linux	/boot/vmlinuz-5.10 root=UUID=1111-2222 ro single
	}
}
`;
const DEBIAN_FILES = { "boot/vmlinuz-6.1.0-18-amd64": "", "boot/initrd.img-6.1.0-18-amd64": "" };

describe("grub.cfg", () => {
  test("Debian, with /boot in the root's filesystem", () => {
    expect(findKernel(installed({ "boot/grub/grub.cfg": GRUB, ...DEBIAN_FILES }), null)).toEqual({
      kernel: "boot/vmlinuz-6.1.0-18-amd64",
      initrds: ["boot/initrd.img-6.1.0-18-amd64"],
      commandLine: "root=UUID=1111-2222 ro quiet",
      source: "boot/grub/grub.cfg",
    });
  });

  test("a partition for /boot, and a subvolume of Btrfs", () => {
    const separate = installed({
      "grub/grub.cfg": GRUB.replaceAll("/boot/", "/"),
      "vmlinuz-6.1.0-18-amd64": "",
      "initrd.img-6.1.0-18-amd64": "",
    });
    expect(findKernel(separate, null)).toMatchObject({ kernel: "vmlinuz-6.1.0-18-amd64" });
    const subvolume = installed({ "boot/grub/grub.cfg": GRUB.replaceAll("/boot/", "/@/boot/"), ...DEBIAN_FILES });
    expect(findKernel(subvolume, null)).toMatchObject({ kernel: "boot/vmlinuz-6.1.0-18-amd64" });
  });

  test("what cannot be determined is said", () => {
    const without = installed({ "boot/grub/grub.cfg": GRUB, "boot/vmlinuz-6.1.0-18-amd64": "" });
    expect(findKernel(without, null)).toMatch(/names \/boot\/initrd\.img-6\.1\.0-18-amd64, which is not there/);
    const variable = installed({ "boot/grub/grub.cfg": GRUB.replace("quiet", "$secret ${other}"), ...DEBIAN_FILES });
    expect(findKernel(variable, null)).toBe("boot/grub/grub.cfg uses secret and other, which is not set there");
    const none = installed({ "boot/grub/grub.cfg": "linux x\nmenuentry 'memtest86+' {\n linux16 /m\n}\n" });
    expect(findKernel(none, null)).toMatch(/no menu entry with a kernel/);
    expect(findKernel(installed({ "EFI/debian/grub.cfg": "configfile x" }), null)).toBe("it holds no kernel");
  });
});

describe("entries", () => {
  const entry = (version: string, more = "") =>
    `title Fedora (${version})\nversion ${version}\nlinux /vmlinuz-${version}\ninitrd /initramfs-${version}.img $tuned_initrd\noptions $kernelopts $tuned_params\n${more}`;
  const FEDORA = {
    "loader/entries/abc-0-rescue.conf": entry("0-rescue"),
    "loader/entries/abc-6.9.7-200.conf": entry("6.9.7-200"),
    "loader/entries/abc-6.10.3-200.conf": entry("6.10.3-200"),
    "grub2/grubenv": "# GRUB Environment Block\nkernelopts=root=UUID=9999 ro rhgb\n########",
    "vmlinuz-6.9.7-200": "",
    "initramfs-6.9.7-200.img": "",
    "vmlinuz-6.10.3-200": "",
    "initramfs-6.10.3-200.img": "",
  };
  test("the newest, with the options that are grub's", () => {
    expect(findKernel(installed(FEDORA), null)).toEqual({
      kernel: "vmlinuz-6.10.3-200",
      initrds: ["initramfs-6.10.3-200.img"],
      commandLine: "root=UUID=9999 ro rhgb",
      source: "loader/entries/abc-6.10.3-200.conf",
    });
  });
  test("the one that was chosen", () => {
    const grubenv = `${FEDORA["grub2/grubenv"]}\nsaved_entry=abc-6.9.7-200\n`;
    expect(findKernel(installed({ ...FEDORA, "grub2/grubenv": grubenv }), null)).toMatchObject({
      kernel: "vmlinuz-6.9.7-200",
    });
  });
  test("systemd-boot on an EFI system partition", () => {
    const esp = installed({
      "loader/entries/m-6.1.conf":
        "title x\nlinux /m/6.1/linux\ninitrd /m/6.1/ucode\ninitrd /m/6.1/initrd\noptions root=UUID=1\noptions quiet\n",
      "m/6.1/linux": "",
      "m/6.1/ucode": "",
      "m/6.1/initrd": "",
    });
    expect(findKernel(esp, null)).toMatchObject({
      kernel: "m/6.1/linux",
      initrds: ["m/6.1/ucode", "m/6.1/initrd"],
      commandLine: "root=UUID=1 quiet",
    });
  });
  test("only rescue, and one without a kernel", () => {
    expect(findKernel(installed({ "loader/entries/abc-0-rescue.conf": entry("0") }), null)).toMatch(
      /no entry but for rescue/,
    );
    expect(findKernel(installed({ "loader/entries/a.conf": "title x\nefi /x.efi\n" }), null)).toMatch(
      /names no kernel/,
    );
  });
});

test("links, where it is known what the root is called", () => {
  const files = installed({ vmlinuz: "", "initrd.img": "" });
  expect(findKernel(files, "PARTUUID=1-02")).toEqual({
    kernel: "vmlinuz",
    initrds: ["initrd.img"],
    commandLine: "root=PARTUUID=1-02 ro",
    source: "/vmlinuz",
  });
  expect(findKernel(files, null)).toMatch(/not what its root is to be called/);
  expect(findKernel(installed({}), "x")).toBe("it holds no kernel");
});
