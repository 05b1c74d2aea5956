import { describe, expect, test } from "bun:test";
import { macOfBootif, parseCommandLine, splitCommandLine } from "../../src/boot/init/command-line.ts";

const OPTIONS = ["memory", "linger", "block-size"];
const read = (text: string) => parseCommandLine(text, OPTIONS);

describe("words", () => {
  const cases: readonly [string, string[]][] = [
    ["", []],
    ["  quiet\tsplash \n", ["quiet", "splash"]],
    ['a="b c" d', ["a=b c", "d"]],
    ['"a=b c" d', ["a=b c", "d"]],
    ['a=b" "c', ['a=b" "c']],
    ['a="b', ["a=b"]],
    ['a=""', ["a="]],
    ['"', [""]],
    ["a -- b=c", ["a"]],
    ["a=-- b", ["a=--", "b"]],
  ];
  for (const [text, words] of cases)
    test(JSON.stringify(text), () => {
      expect(splitCommandLine(text)).toEqual(words);
    });
});

test("everything that a node honours", () => {
  const text =
    'BOOT_IMAGE=/vmlinuz ip=dhcp diskswarm.server=http://10.0.0.1:6969/x/ diskswarm.torrent=magnet:?xt=urn:btih:00 "diskswarm.target=model=Samsung SSD*,size>=100G" diskswarm.after=poweroff diskswarm.key=AbC+/w== diskswarm.debug rd.shell rd.emergency=halt BOOTIF=01-52-54-00-AB-cd-01 diskswarm.memory=32M diskswarm.block_size=16K console=ttyS0';
  const { settings, problems } = read(text);
  expect(problems).toEqual([]);
  expect(settings).toMatchObject({
    server: "http://10.0.0.1:6969",
    torrent: "magnet:?xt=urn:btih:00",
    after: "poweroff",
    key: "AbC+/w==",
    debug: true,
    options: { memory: "32M", "block-size": "16K" },
    shell: true,
    emergency: "halt",
    bootMac: "52:54:00:ab:cd:01",
  });
  expect(settings.target).toMatchObject({ model: "Samsung SSD*", sizeMinBytes: 100 * 1024 ** 3 });
});

test("nothing of ours: nothing is set and nothing is wrong", () => {
  const { settings, problems } = read("root=/dev/sda1 ro quiet diskswarm=x xdiskswarm.server=y");
  expect(problems).toEqual([]);
  expect(settings).toMatchObject({ server: null, torrent: null, target: null, after: null, shell: false, options: {} });
});

test("a server may be named by its host alone", () => {
  expect(read("diskswarm.server=10.0.0.1").settings.server).toBe("http://10.0.0.1:6969");
  expect(read("diskswarm.server=imaging.lan:80").settings.server).toBe("http://imaging.lan");
  expect(read("diskswarm.server=[fd00::1]").settings.server).toBe("http://[fd00::1]:6969");
  expect(read("diskswarm.server=https://x.example").settings.server).toBe("https://x.example");
});

test("the last one counts, and mends what was wrong before it", () => {
  const { settings, problems } = read(
    "diskswarm.after=explode diskswarm.after=reboot diskswarm.after=shell rd.shell rd.shell=0",
  );
  expect([settings.after, settings.shell, problems]).toEqual(["shell", false, []]);
  expect(read("diskswarm.after=reboot diskswarm.after=explode").problems).toHaveLength(1);
});

describe("told, with what would be right", () => {
  const cases: readonly [string, RegExp][] = [
    ["diskswarm.taget=auto", /diskswarm\.taget, which is not known; known are .*diskswarm\.target.*diskswarm\.memory/],
    ["diskswarm.server=ftp://x", /diskswarm\.server is "ftp:\/\/x" but must be/],
    ["diskswarm.server=", /diskswarm\.server needs a value/],
    ["diskswarm.server", /diskswarm\.server needs a value/],
    ["diskswarm.server=a/b", /must be the server's URL/],
    ["diskswarm.server=x:99999", /must be the server's URL/],
    ["diskswarm.torrent=/tmp/x.torrent", /must be an http or https URL/],
    ["diskswarm.target=disk0", /diskswarm\.target: "disk0" is no target rule/],
    ["diskswarm.after=restart", /one of reboot, poweroff, kexec, shell/],
    ["rd.emergency=explode", /rd\.emergency is "explode"/],
  ];
  for (const [text, problem] of cases)
    test(text, () => {
      const { problems } = read(text);
      expect(problems).toHaveLength(1);
      expect(problems[0]).toMatch(problem);
    });
});

test("BOOTIF in its spellings", () => {
  expect(macOfBootif("01-52-54-00-12-34-56")).toBe("52:54:00:12:34:56");
  expect(macOfBootif("52:54:00:12:34:AB")).toBe("52:54:00:12:34:ab");
  for (const text of ["", "eth0", "01-52-54-00-12-34", "20-52-54-00-12-34-56", "52:54:00:12:34:56:78"])
    expect(macOfBootif(text)).toBeNull();
});
