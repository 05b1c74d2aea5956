import { describe, expect, test } from "bun:test";
import { entryFor, parseBootEntries, removableLoader, systemLoaders } from "../../src/boot/init/efi-loader.ts";
import { installed } from "./installed.ts";

const DEBIAN = installed({
  "EFI/debian/shimx64.efi": "",
  "EFI/debian/grubx64.efi": "",
  "EFI/debian/grub.cfg": "",
});

describe("loaders", () => {
  test("Debian's, shim first; nothing at the removable path", () => {
    expect(removableLoader(DEBIAN, "x64")).toBeNull();
    expect(systemLoaders(DEBIAN, "x64")).toEqual([
      { path: "\\EFI\\debian\\shimx64.efi", label: "debian" },
      { path: "\\EFI\\debian\\grubx64.efi", label: "debian" },
    ]);
    expect(systemLoaders(DEBIAN, "arm64")).toEqual([]);
  });

  test("Windows beside Linux, in any case of letters", () => {
    const esp = installed({
      "efi/Microsoft/Boot/bootmgfw.efi": "",
      "efi/Boot/bootx64.efi": "",
      "efi/ubuntu/SHIMX64.EFI": "",
    });
    expect(removableLoader(esp, "x64")).toBe("\\efi\\Boot\\bootx64.efi");
    expect(removableLoader(esp, "arm64")).toBeNull();
    expect(systemLoaders(esp, "x64").map(({ path }) => path)).toEqual([
      "\\efi\\ubuntu\\SHIMX64.EFI",
      "\\efi\\Microsoft\\Boot\\bootmgfw.efi",
    ]);
  });

  test("arm64 and an empty partition", () => {
    expect(removableLoader(installed({ "EFI/BOOT/BOOTAA64.EFI": "" }), "arm64")).toBe("\\EFI\\BOOT\\BOOTAA64.EFI");
    expect(removableLoader(installed({}), "x64")).toBeNull();
    expect(systemLoaders(installed({}), "x64")).toEqual([]);
  });
});

describe("efibootmgr", () => {
  const GUID = "a1b2c3d4-0001-4000-8000-00000000beef";
  const OLD = `BootCurrent: 0001
Timeout: 3 seconds
BootOrder: 0002,0001,0000
Boot0000* UiApp
Boot0001* UEFI PXEv4 (MAC:525400123456)
Boot0002* debian\tHD(1,GPT,${GUID},0x800,0x20000)/File(\\EFI\\debian\\shimx64.efi)
Boot0003  off\tHD(1,GPT,${GUID},0x800,0x20000)/File(\\EFI\\off\\shimx64.efi)
MirroredPercentageAbove4G: 0.00
`;
  test("entries and order", () => {
    const found = parseBootEntries(OLD);
    expect(found.order).toEqual(["0002", "0001", "0000"]);
    expect(found.entries.map(({ number, isActive }) => [number, isActive])).toEqual([
      ["0000", true],
      ["0001", true],
      ["0002", true],
      ["0003", false],
    ]);
  });

  test("an entry counts when it is active, in the order, and for that very partition and loader", () => {
    const found = parseBootEntries(OLD);
    expect(entryFor(found, GUID.toUpperCase(), "\\EFI\\DEBIAN\\shimx64.efi")?.number).toBe("0002");
    expect(entryFor(found, "ffffffff-0001-4000-8000-00000000beef", "\\EFI\\debian\\shimx64.efi")).toBeNull();
    expect(entryFor(found, GUID, "\\EFI\\debian\\grubx64.efi")).toBeNull();
    expect(entryFor(found, GUID, "\\EFI\\off\\shimx64.efi")).toBeNull();
    expect(entryFor({ ...found, order: ["0001"] }, GUID, "\\EFI\\debian\\shimx64.efi")).toBeNull();
  });

  test("efibootmgr 18 prints paths without File()", () => {
    const found = parseBootEntries(
      `BootOrder: 0004\nBoot0004* diskswarm\tHD(1,GPT,${GUID},0x800,0x20000)/\\EFI\\debian\\shimx64.efi\n`,
    );
    expect(entryFor(found, GUID, "\\EFI\\debian\\shimx64.efi")?.number).toBe("0004");
  });

  test("no words, no entries", () => {
    expect(parseBootEntries("")).toEqual({ order: [], entries: [] });
    expect(parseBootEntries("No BootOrder is set; firmware will attempt recovery\n")).toEqual({
      order: [],
      entries: [],
    });
  });
});
