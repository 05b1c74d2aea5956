/** Which mounts make a disk unfit for capture: read from made-up mountinfo. */
import { expect, test } from "bun:test";
import { readWriteMountOf } from "../../src/image/mounted-source.ts";

function line(id: string, folder: string, source: string, superOptions: string): string {
  return `36 35 ${id} / ${folder} rw,noatime master:1 - ext4 ${source} ${superOptions}`;
}

test("a writable superblock of that device is a mount, others are not", () => {
  const info = [
    "not a mount at all",
    line("259:77", "/data\\040one", "/dev/made-up", "ro"),
    line("259:78", "/", "/dev/root", "rw,errors=remount-ro"),
    line("259:79", "/srv/my\\040disk", "/dev/other", "rw"),
    "",
  ].join("\n");
  expect(readWriteMountOf("259:77", info)).toBeNull();
  expect(readWriteMountOf("259:78", info)).toEqual({ device: "/dev/root", folder: "/" });
  expect(readWriteMountOf("259:79", info)).toEqual({ device: "/dev/other", folder: "/srv/my disk" });
  expect(readWriteMountOf("259:80", info)).toBeNull();
});
