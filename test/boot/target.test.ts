/** Rules, and what they choose among the disks of machines that exist. */
import { describe, expect, test } from "bun:test";
import { chooseTarget, diskTable, type ImageFit } from "../../src/boot/init/choose-target.ts";
import type { Disk } from "../../src/boot/init/disks.ts";
import { matchesPattern, parseTargetRule, type TargetRule } from "../../src/boot/init/target-rule.ts";

const GB = 1e9;

function disk(path: string, sizeBytes: number, more: Partial<Disk> = {}): Disk {
  return {
    path,
    sizeBytes,
    sectorBytes: 512,
    model: "",
    serial: "",
    wwn: "",
    readOnly: false,
    removable: false,
    rotational: false,
    use: null,
    ...more,
  };
}

function rule(text: string): TargetRule {
  const parsed = parseTargetRule(text);
  if (typeof parsed === "string") throw new Error(parsed);
  return parsed;
}

/** An image of a disk of that size, which may need sectors of that size and, with its GPT rewritten, less room. */
function needs(diskBytes: number, sectorBytes: number | null = null, leastBytes = diskBytes): ImageFit {
  const whyNot = (disk: Disk) => {
    if (sectorBytes !== null && disk.sectorBytes !== sectorBytes) return "its sectors are not the image's";
    return disk.sizeBytes < leastBytes ? "it is too small" : null;
  };
  return { diskBytes, whyNot };
}

/** The path that is chosen, or the type of what is not. */
function choose(text: string, disks: readonly Disk[], fit: ImageFit = needs(20 * GB)): string {
  const choice = chooseTarget(rule(text), disks, fit);
  return choice.type === "chosen" ? choice.disk.path : choice.type;
}

describe("rules", () => {
  test("terms", () => {
    expect(rule("auto")).toMatchObject({ auto: true, path: null, sizeMinBytes: 0 });
    expect(rule(" serial= S3Z8 , wwn=0x5000C500A1 ,model=Samsung  SSD 8* ")).toMatchObject({
      serial: "S3Z8",
      wwn: "5000c500a1",
      model: "Samsung SSD 8*",
    });
    expect(rule("size>=1T,size<=2T,auto")).toMatchObject({
      sizeMinBytes: 1024 ** 4,
      sizeMaxBytes: 2 * 1024 ** 4,
      auto: true,
    });
    expect(rule("/dev/disk/by-id/ata-X")).toMatchObject({ path: "/dev/disk/by-id/ata-X", auto: false });
  });
  const wrong: readonly [string, RegExp][] = [
    ["", /"" is no target rule/],
    ["sda", /"sda" is no target rule; it must be a path/],
    ["auto,", /"" is no target rule/],
    ["serial=", /serial= needs a value/],
    ["serial>=x", /takes = and not >=/],
    ["size=10G", /must be a bound/],
    ["size>=lots", /must be a bound/],
    ["size>=2T,size<=1T", /no disk is at least/],
    ["/dev/sda,/dev/sdb", /takes one path/],
    ["model=a,model=b", /takes one model/],
    [`model=${"x".repeat(300)}`, /at most 300/],
  ];
  for (const [text, problem] of wrong)
    test(`refused: ${text.slice(0, 40)}`, () => {
      expect(parseTargetRule(text)).toMatch(problem);
    });
});

test("patterns", () => {
  const yes = [
    ["samsung ssd*", "Samsung SSD 860 EVO"],
    ["*", ""],
    ["a?c*", "abcd"],
    ["*evo", "Samsung EVO"],
    ["a*b*c", "a-b-b-c"],
    ["", ""],
  ];
  const no = [
    ["samsung", "Samsung SSD"],
    ["?", ""],
    ["*evo", "evo 1"],
    ["a*b*c", "a-c-b"],
    ["[ab]", "a"],
  ];
  for (const [pattern, text] of yes) expect([pattern, matchesPattern(pattern!, text!)]).toEqual([pattern!, true]);
  for (const [pattern, text] of no) expect([pattern, matchesPattern(pattern!, text!)]).toEqual([pattern!, false]);
  // A pattern that makes naive matchers take for ever.
  expect(matchesPattern(`${"*a".repeat(100)}b`, "a".repeat(5000))).toBe(false);
});

describe("choice", () => {
  const ssd = disk("/dev/sda", 240.057 * GB, {
    model: "KINGSTON SA400S37240G",
    serial: "50026B7",
    wwn: "50026b77850d5d5e",
  });
  const hdd = disk("/dev/sdb", 4000.787 * GB, { model: "ST4000DM004-2CV104", serial: "WFN1ABC", rotational: true });
  const twin = disk("/dev/sdc", 4000.787 * GB, { model: "ST4000DM004-2CV104", serial: "WFN1ABD", rotational: true });
  const stick = disk("/dev/sdd", 64 * GB, { model: "Cruzer Blade", removable: true });
  const reader = disk("/dev/sde", 0, { model: "SD/MMC", removable: true });

  test("auto takes the smallest that fits, never one that is removable", () => {
    expect(choose("auto", [stick, hdd, ssd, reader])).toBe("/dev/sda");
    expect(choose("auto", [ssd, hdd], needs(300 * GB))).toBe("/dev/sdb");
    expect(choose("auto", [stick])).toBe("none");
    expect(choose("auto", [])).toBe("none");
  });

  test("auto refuses disks that are nearly the same size", () => {
    expect(choose("auto", [hdd, twin])).toBe("ambiguous");
    expect(choose("auto", [hdd, twin, ssd])).toBe("/dev/sda");
    expect(choose("auto", [disk("/dev/a", 100 * GB), disk("/dev/b", 104.9 * GB)])).toBe("ambiguous");
    expect(choose("auto", [disk("/dev/a", 100 * GB), disk("/dev/b", 105 * GB)])).toBe("/dev/a");
    // The disk that does not fit makes nothing ambiguous.
    expect(choose("auto", [hdd, { ...twin, use: "it is mounted on /" }])).toBe("/dev/sdb");
  });

  test("a disk smaller than the image's is taken only where there is no other", () => {
    const image = needs(240 * GB, null, 20 * GB);
    const cache = disk("/dev/nvme0n1", 32 * GB);
    expect(choose("auto", [cache, ssd, hdd], image)).toBe("/dev/sda");
    expect(choose("auto", [cache], image)).toBe("/dev/nvme0n1");
    expect(choose("auto", [cache, disk("/dev/sdx", 128 * GB)], image)).toBe("ambiguous");
    expect(choose("/dev/nvme0n1", [cache, ssd], image)).toBe("/dev/nvme0n1");
    expect(choose("size<=100G", [cache, ssd], image)).toBe("/dev/nvme0n1");
  });

  test("without auto a rule that two disks meet is ambiguous", () => {
    expect(choose("size>=100G", [ssd, hdd])).toBe("ambiguous");
    expect(choose("size>=1T", [ssd, hdd])).toBe("/dev/sdb");
    expect(choose("size>=100G,auto", [ssd, hdd])).toBe("/dev/sda");
    expect(choose("model=st4000*", [ssd, hdd, twin])).toBe("ambiguous");
    expect(choose("model=st4000*,serial=wfn1abd", [ssd, hdd, twin])).toBe("/dev/sdc");
    expect(choose("size>=10G", [stick, ssd])).toBe("/dev/sda");
  });

  test("a rule that names its disk may take a stick, and none that does not fit", () => {
    expect(choose("/dev/sdd", [stick, ssd])).toBe("/dev/sdd");
    expect(choose("model=Cruzer Blade", [stick, ssd])).toBe("/dev/sdd");
    expect(choose("wwn=naa.50026b77850d5d5e", [ssd, hdd])).toBe("/dev/sda");
    expect(choose("/dev/sda", [ssd], needs(241 * GB))).toBe("none");
    expect(choose("/dev/sda", [ssd], needs(GB, 4096))).toBe("none");
    expect(choose("/dev/sda", [{ ...ssd, readOnly: true }])).toBe("none");
    expect(choose("serial=50026B7,size>=1T", [ssd])).toBe("none");
  });

  test("a refusal has a line for each disk that says why", () => {
    const disks = [ssd, hdd, twin, stick, reader, disk("/dev/vda", 10 * GB, { use: "it is mounted on /; unmount it" })];
    const choice = chooseTarget(rule("auto,size>=500G"), disks, needs(20 * GB, 512));
    expect(choice.type).toBe("ambiguous");
    if (choice.type === "chosen") return;
    expect(diskTable(disks, choice.reasons).join("\n")).toBe(
      [
        "disk      size       model                  serial",
        "/dev/sda  223.6 GiB  KINGSTON SA400S37240G  50026B7  it is smaller than 500.0 GiB",
        "/dev/sdb  3.64 TiB   ST4000DM004-2CV104     WFN1ABC  fits, and so does another",
        "/dev/sdc  3.64 TiB   ST4000DM004-2CV104     WFN1ABD  fits, and so does another",
        "/dev/sdd  59.6 GiB   Cruzer Blade           -        it is smaller than 500.0 GiB",
        "/dev/sde  0 B        SD/MMC                 -        there is no medium in it",
        "/dev/vda  9.31 GiB   -                      -        it is smaller than 500.0 GiB",
      ].join("\n"),
    );
    const small = chooseTarget(rule("auto"), [disks[5]!, disk("/dev/vdb", 19 * GB)], needs(20 * GB, 512));
    expect(small).toEqual({
      type: "none",
      reasons: ["it is mounted on /; unmount it", "it is too small"],
    });
    expect(diskTable([], [])[0]).toMatch(/no disk at all/);
  });
});
