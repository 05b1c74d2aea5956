import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { ExitCode, Failure } from "../../src/errors.ts";
import * as abi from "../../src/kernel/abi.ts";
import { close, open } from "../../src/kernel/libc.ts";
import { openSource } from "../../src/disk/source.ts";
import { needsOf, openTarget, type TargetNeeds } from "../../src/disk/target.ts";
import type { Metainfo } from "../../src/torrent/types.ts";
import { Bench, extentsOf, hasLoop, rangesOf, run, runPatiently } from "./support.ts";

const MIB = 1024 * 1024;
const NEEDS: TargetNeeds = { bytes: 8 * MIB, sectorBytes: 512, isExact: false };

let bench: Bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(() => bench.end());

/** Opens and returns why it was refused. */
function refusal(
  path: string,
  needs: TargetNeeds = NEEDS,
  force = false,
  direct: "auto" | "on" | "off" = "auto",
): Failure {
  try {
    openTarget(path, needs, { force, direct }).close();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    expect(error.exitCode).toBe(ExitCode.refused);
    expect(error.message).toContain(path);
    expect(error.message).not.toContain("\n");
    return error;
  }
  throw new Error(`${path} was not refused`);
}

describe("a file as target", () => {
  test("needs --force and is left as it was without", () => {
    writeFileSync(bench.path("disk.img"), "keep");
    expect(refusal(bench.path("disk.img")).code).toBe("target-not-block");
    expect(readFileSync(bench.path("disk.img"), "utf8")).toBe("keep");
  });

  test("that is missing is refused without --force and not created", () => {
    expect(refusal(bench.path("none.img")).code).toBe("target-missing");
    expect(existsSync(bench.path("none.img"))).toBe(false);
  });

  test("that is missing is created with --force, in the size of the image", () => {
    const target = openTarget(bench.path("new.img"), NEEDS, { force: true, direct: "auto" });
    expect(target.isNew).toBe(true);
    target.flush();
    target.close();
    expect(statSync(bench.path("new.img")).size).toBe(8 * MIB);
  });

  test("whose directory is missing is refused", () => {
    expect(refusal(bench.path("no/such/disk.img"), NEEDS, true).code).toBe("target-missing");
  });

  test("keeps a larger size, unless the image is of a file", () => {
    const path = bench.file("large.img", 9 * MIB);
    openTarget(path, NEEDS, { force: true, direct: "off" }).close();
    expect(statSync(path).size).toBe(9 * MIB);
    const target = openTarget(path, { ...NEEDS, isExact: true }, { force: true, direct: "off" });
    expect(target.files.sizeBytes).toBe(8 * MIB);
    target.close();
    expect(statSync(path).size).toBe(8 * MIB);
  });

  test("that another deployment writes is refused", () => {
    const path = bench.file("locked.img", MIB);
    const first = openTarget(path, NEEDS, { force: true, direct: "auto" });
    expect(refusal(path, NEEDS, true).code).toBe("target-busy");
    first.close();
    openTarget(path, NEEDS, { force: true, direct: "auto" }).close();
  });
});

describe("refused whatever is forced", () => {
  test("a directory", () => {
    expect(refusal(bench.directory, NEEDS, true).code).toBe("target-directory");
  });

  test("a named pipe", () => {
    run("mkfifo", bench.path("pipe"));
    const error = refusal(bench.path("pipe"), NEEDS, true);
    expect(error.code).toBe("target-type");
    expect(error.message).toContain("named pipe");
  });

  test("a character device", () => {
    expect(refusal("/dev/null", NEEDS, true).message).toContain("character device");
  });

  test("a missing device: never made as a file in /dev", () => {
    expect(refusal("/dev/diskswarm-none", NEEDS, true).code).toBe("target-missing");
    expect(existsSync("/dev/diskswarm-none")).toBe(false);
  });

  test("a link that leads nowhere in /dev's stead", () => {
    symlinkSync("/dev/diskswarm-none/x", bench.path("link"));
    expect(refusal(bench.path("link"), NEEDS, true).code).toBe("target-missing");
  });
});

describe.skipIf(!hasLoop)("a block device as target", () => {
  let file: string;
  beforeEach(() => {
    file = bench.file("backing.img", 8 * MIB);
  });

  test("is opened without --force, exclusively", () => {
    const device = bench.loop(file);
    const target = openTarget(device, NEEDS, { force: false, direct: "auto" });
    expect(target.files.kind).toBe("block");
    expect(target.files.sizeBytes).toBe(8 * MIB);
    expect(target.files.sectorBytes).toBe(512);
    expect(target.files.direct).not.toBeNull();
    expect(open(device, abi.O_RDWR | abi.O_EXCL)).toBe(-16);
    target.flush();
    target.close();
    const fd = open(device, abi.O_RDWR | abi.O_EXCL);
    expect(fd).toBeGreaterThan(0);
    close(fd);
  });

  test("is refused when it is mounted, also read-only", () => {
    run("mkfs.ext4", "-q", file);
    const device = bench.loop(file);
    const point = bench.mount("-o", "ro", device);
    const error = refusal(device);
    expect(error.code).toBe("target-mounted");
    expect(error.message).toContain(point);
  });

  test("is refused when one of its partitions is mounted", () => {
    const device = bench.loop(file);
    const partition = `${device}p1`;
    run("addpart", device, "1", "2048", "12288");
    bench.onEnd(() => runPatiently("delpart", device, "1"));
    run("mkfs.ext4", "-q", partition);
    const point = bench.mount(partition);
    const error = refusal(device);
    expect(error.code).toBe("target-mounted");
    expect(error.message).toContain(`${device}p1`);
    expect(error.message).toContain(point);
    expect(refusal(partition, { ...NEEDS, bytes: MIB }).code).toBe("target-mounted");
  });

  test("is refused when it is swap", () => {
    run("mkswap", "-q", file);
    const device = bench.loop(file);
    run("swapon", device);
    bench.onEnd(() => run("swapoff", device));
    const error = refusal(device);
    expect(error.code).toBe("target-held");
    expect(error.message).toContain("swap");
  });

  test("is refused when another program holds it exclusively", () => {
    const device = bench.loop(file);
    const fd = open(device, abi.O_RDWR | abi.O_EXCL);
    expect(fd).toBeGreaterThan(0);
    expect(refusal(device).code).toBe("target-busy");
    close(fd);
  });

  test("is refused when it is read-only", () => {
    expect(refusal(bench.loop(file, "--read-only")).code).toBe("target-read-only");
  });

  test("is refused when it is too small, with both sizes", () => {
    const error = refusal(bench.loop(file), { ...NEEDS, bytes: 8 * MIB + 1 });
    expect(error.code).toBe("target-too-small");
    expect(error.message).toContain(String(8 * MIB));
    expect(error.message).toContain(String(8 * MIB + 1));
  });

  test("is refused when its sectors are not those of the partition table", () => {
    const device = bench.loop(file, "--sector-size", "4096");
    expect(refusal(device).code).toBe("target-sector-size");
    openTarget(device, { ...NEEDS, sectorBytes: null }, { force: false, direct: "auto" }).close();
  });

  test("a file under a loop device is refused", () => {
    const device = bench.loop(file);
    const error = refusal(file, NEEDS, true);
    expect(error.code).toBe("target-held");
    expect(error.message).toContain(device);
  });

  test("a source notices that it is written to", () => {
    const device = bench.loop(file);
    const source = openSource(device, { needBytes: 8 * MIB, direct: "auto" });
    expect(source.changed()).toBeNull();
    run("dd", "if=/dev/zero", `of=${device}`, "bs=4096", "count=1", "oflag=direct", "conv=notrunc");
    expect(source.changed()).toContain("written");
    source.close();
  });
});

describe("a source", () => {
  test("that is a file is opened, and notices change", () => {
    const path = bench.file("image.img", MIB);
    const source = openSource(path, { needBytes: MIB, direct: "auto" });
    expect(source.files.directFd).toBe(-1);
    expect(source.changed()).toBeNull();
    writeFileSync(path, "shorter");
    expect(source.changed()).toContain("size");
    run("rm", path);
    expect(source.changed()).toContain("no longer there");
    bench.file("image.img", MIB);
    expect(source.changed()).toBe("was replaced");
    source.close();
  });

  test("that is too small, missing or a directory is a failure that says so", () => {
    const path = bench.file("image.img", 1000);
    expect(() => openSource(path, { needBytes: 1001, direct: "auto" })).toThrow("1001");
    expect(() => openSource(bench.path("none"), { needBytes: null, direct: "auto" })).toThrow("check the name");
    expect(() => openSource(bench.directory, { needBytes: null, direct: "auto" })).toThrow("is a directory");
  });
});

describe("needsOf", () => {
  const plain = {
    extents: extentsOf([
      [0, 100],
      [4096, 1000],
    ]),
    image: null,
    layout: "extents",
  } as unknown as Metainfo;

  test("a torrent of extents alone needs what they reach", () => {
    expect(needsOf(plain)).toMatchObject({ bytes: 5096, sectorBytes: null, isExact: false, layout: null });
  });

  test("a single file is written in exactly its size", () => {
    expect(needsOf({ ...plain, layout: "single" } as Metainfo).isExact).toBe(true);
  });

  test("a disk image needs the whole disk and its sector size", () => {
    const image = {
      version: 1,
      diskBytes: 9999 * 512,
      sectorBytes: 512,
      kind: "disk",
      zeroRanges: rangesOf([]),
    } as const;
    expect(needsOf({ ...plain, image })).toMatchObject({ bytes: 9999 * 512, sectorBytes: 512, isExact: false });
    expect(needsOf({ ...plain, image: { ...image, kind: "partition" } }).sectorBytes).toBeNull();
    expect(needsOf({ ...plain, image: { ...image, kind: "file" } }).isExact).toBe(true);
  });
});
