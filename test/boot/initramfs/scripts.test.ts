/** The shell scripts of the initramfs, run by the shell that runs them on a node. */
import { beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseEnvironmentFile } from "../../../src/boot/init/machine.ts";
import { REPOSITORY } from "../../harness/diskswarm.ts";
import { type Scope, scopedTest } from "../../harness/scope.ts";
import { needTools } from "../../harness/tools.ts";

const FOLDER = join(REPOSITORY, "initramfs");
const SCRIPTS = ["attach", "boot", "common", "fetch", "hotplug", "init", "network", "udhcpc"];

beforeAll(() => needTools("busybox"));

/** Runs commands after the scripts were read, with that kernel command line. */
function shell(commands: string, commandLine = "", env: Record<string, string> = {}): string {
  const text = `set -u; . ${FOLDER}/common.sh; set +u; . ${FOLDER}/network.sh; . ${FOLDER}/fetch.sh; ${commands}`;
  const { exitCode, stdout, stderr } = Bun.spawnSync(["busybox", "sh", "-c", text], {
    env: { PATH: process.env.PATH!, CMDLINE: commandLine, ...env },
  });
  if (exitCode !== 0 || stderr.length > 0) throw new Error(`status ${exitCode}: ${stderr}`);
  return stdout.toString().trimEnd();
}

test("every script is one that busybox's shell understands", () => {
  for (const name of SCRIPTS) {
    const { exitCode, stderr } = Bun.spawnSync(["busybox", "sh", "-n", join(FOLDER, `${name}.sh`)]);
    expect([name, exitCode, stderr.toString()]).toEqual([name, 0, ""]);
  }
});

describe("the kernel's command line", () => {
  test("the last of several counts, quotes go away, nothing is expanded", () => {
    expect(shell("argument ip", 'quiet ip=off "diskswarm.x=a" ip=dhcp')).toBe("dhcp");
    expect(shell("argument diskswarm.server", 'diskswarm.server="http://10.0.0.1:6969" *')).toBe(
      "http://10.0.0.1:6969",
    );
    expect(shell("argument a", '"a=b"')).toBe("b");
    expect(shell("argument a", "a=$(id) *")).toBe("$(id)");
    expect(shell("argument a || echo none", "aa=b xa=c a")).toBe("none");
  });
  test("switches", () => {
    const cases: [string, string][] = [
      ["rd.shell", "yes"],
      ["rd.shell=1", "yes"],
      ["rd.shell rd.shell=0", "no"],
      ["rd.shell=no", "no"],
      ["rd.shells", "no"],
      ["", "no"],
    ];
    for (const [line, wanted] of cases)
      expect([line, shell("is_on rd.shell && echo yes || echo no", line)]).toEqual([line, wanted]);
  });
});

describe("ip=", () => {
  const SHOWN = "METHOD ADDRESS PREFIX GATEWAY SERVER HOSTNAME DEVICE DNS NTP MTU PROBLEM";
  const parse = (text: string) => {
    const show = SHOWN.split(" ").map((name) => `echo "${name}=$IP_${name}"`);
    const lines = shell(`parse_ip '${text}'; ${show.join("; ")}`).split("\n");
    return Object.fromEntries(
      lines.map((line) => line.split(/=(.*)/s).slice(0, 2)).filter(([, value]) => value !== ""),
    );
  };

  const CASES: [string, Record<string, string>][] = [
    ["dhcp", { METHOD: "dhcp" }],
    ["on", { METHOD: "dhcp" }],
    ["any", { METHOD: "dhcp" }],
    ["off", { METHOD: "off" }],
    ["none", { METHOD: "off" }],
    ["auto6", { METHOD: "auto6" }],
    ["eth1:dhcp", { METHOD: "dhcp", DEVICE: "eth1" }],
    ["eth1:dhcp:9000", { METHOD: "dhcp", DEVICE: "eth1", MTU: "9000" }],
    [":::::eth0:dhcp", { METHOD: "dhcp", DEVICE: "eth0" }],
    ["::::lab7::dhcp", { METHOD: "dhcp", HOSTNAME: "lab7" }],
    ["10.0.0.7", { METHOD: "static", ADDRESS: "10.0.0.7", PREFIX: "8" }],
    ["192.168.1.7", { METHOD: "static", ADDRESS: "192.168.1.7", PREFIX: "24" }],
    [
      "10.0.0.7:10.0.0.1:10.0.0.254:255.255.254.0:lab7:eth1:none:9.9.9.9:1.1.1.1:10.0.0.3",
      {
        METHOD: "static",
        ADDRESS: "10.0.0.7",
        SERVER: "10.0.0.1",
        GATEWAY: "10.0.0.254",
        PREFIX: "23",
        HOSTNAME: "lab7",
        DEVICE: "eth1",
        DNS: "9.9.9.9 1.1.1.1",
        NTP: "10.0.0.3",
      },
    ],
    [
      "10.0.0.7::10.0.0.254:24::eth1:none:9000",
      { METHOD: "static", ADDRESS: "10.0.0.7", GATEWAY: "10.0.0.254", PREFIX: "24", DEVICE: "eth1", MTU: "9000" },
    ],
    [
      "[2001:db8::7]::[2001:db8::1]:64:lab7:eth0:none",
      {
        METHOD: "static",
        ADDRESS: "2001:db8::7",
        GATEWAY: "2001:db8::1",
        PREFIX: "64",
        HOSTNAME: "lab7",
        DEVICE: "eth0",
      },
    ],
    ["eth0:none", { METHOD: "off", DEVICE: "eth0" }],
    ["dchp", { PROBLEM: '"dchp" is neither an address nor dhcp, auto6 or off' }],
    ["10.0.0.7::::::", { METHOD: "static", ADDRESS: "10.0.0.7", PREFIX: "8" }],
    ["10.0.0.7:::255.0.255.0", { METHOD: "static", ADDRESS: "10.0.0.7", PROBLEM: '"255.0.255.0" is no netmask' }],
    ["eth0:dhcp:big", { METHOD: "dhcp", DEVICE: "eth0", MTU: "big", PROBLEM: '"big" is no MTU' }],
  ];
  for (const [text, wanted] of CASES) test(text, () => expect(parse(text)).toEqual(wanted));

  test("whatever it is, the shell goes on", () => {
    for (const text of [
      "",
      ":",
      ":::::::::::::::::",
      "[",
      "[:::",
      "]:[",
      "$(id)",
      "`id`",
      ";id",
      "*",
      "-e",
      "a".repeat(5000),
    ])
      expect(shell(`parse_ip '${text.replaceAll("'", "")}' || :; echo "$IP_METHOD$IP_PROBLEM" | head -c 40`)).not.toBe(
        "",
      );
  });
});

test("netmasks", () => {
  const prefix = (mask: string) => shell(`prefix_of 10.0.0.1 '${mask}' || echo none`);
  for (let bits = 0; bits <= 32; bits++) {
    const word = bits === 0 ? 0 : (0xffffffff << (32 - bits)) >>> 0;
    expect(prefix([24, 16, 8, 0].map((shift) => (word >>> shift) & 255).join("."))).toBe(String(bits));
  }
  expect(["255.255.0.255", "256.0.0.0", "255.255.255.1", "x", "129"].map(prefix)).toEqual(Array(5).fill("none"));
});

test("BOOTIF and names of VLANs", () => {
  expect(shell("mac_of_bootif 01-52-54-00-AB-cd-EF")).toBe("52:54:00:ab:cd:ef");
  expect(shell("mac_of_bootif 52:54:00:ab:cd:ef")).toBe("52:54:00:ab:cd:ef");
  const id = (name: string) => shell(`vlan_id ${name} || echo none`);
  expect(["eth0.5", "vlan0005", "vlan5", "eth0.0100", "vlan", "eth0.0", "eth0.4095"].map(id)).toEqual([
    ...["5", "5", "5", "100"],
    ...["none", "none", "none"],
  ]);
});

/** A /sys/class/net with these cards. */
function fakeCards(scope: Scope): string {
  const sys = scope.tempDir();
  const cards: [string, string, string, string][] = [
    ["eth0", "52:54:00:00:00:01", "1", "0"],
    ["eth1", "52:54:00:00:00:02", "1", "1"],
    ["wlan0", "52:54:00:00:00:03", "1", "1"],
    ["ib0", "80:00:00:00", "32", "1"],
    ["lo", "00:00:00:00:00:00", "772", "1"],
  ];
  for (const [name, mac, type, carrier] of cards) {
    const folder = join(sys, "class/net", name);
    mkdirSync(join(folder, name === "lo" ? "x" : "device"), { recursive: true });
    if (name === "wlan0") mkdirSync(join(folder, "wireless"));
    for (const [file, content] of Object.entries({ address: mac, type, carrier }))
      writeFileSync(join(folder, file), `${content}\n`);
  }
  return sys;
}

scopedTest("the cards that may be used", async (scope) => {
  const env = { NET_SYS: fakeCards(scope) };
  const cards = (ip: string, line = "", vlan = "") =>
    shell(`parse_ip '${ip}'; VLAN_PARENT=${vlan}; candidates`, line, env).split("\n").filter(Boolean);
  expect(cards("dhcp")).toEqual(["eth0", "eth1"]);
  expect(cards("dhcp", "BOOTIF=01-52-54-00-00-00-02")).toEqual(["eth1"]);
  expect(cards("dhcp", "BOOTIF=01-52-54-00-00-00-09")).toEqual([]);
  // A device that is named wins over the one that was booted from.
  expect(cards("eth0:dhcp", "BOOTIF=01-52-54-00-00-00-02")).toEqual(["eth0"]);
  expect(cards("dhcp", "", "eth1")).toEqual(["eth1"]);
  expect(shell("has_link eth1 && echo yes; has_link eth0 || echo no", "", env)).toBe("yes\nno");
});

scopedTest("a lease is written so that neither a shell nor init is led astray", async (scope) => {
  const env = { NET_ENV: join(scope.tempDir(), "run/network.env"), NET_SYS: fakeCards(scope) };
  const evil = "a'; touch /tmp/pwned; '$(id)\n`id`";
  shell(
    'NET_ADDRESS=10.0.0.7 NET_PREFIX=24 NET_ROUTER="10.0.0.1 10.0.0.2" NET_BOOT_FILE="$EVIL" NET_NEXT_SERVER=10.0.0.5; write_env dhcp eth1; NET_DNS="9.9.9.9 1.1.1.1" NET_DOMAIN=lab write_resolv_conf',
    "nameserver=[2001:db8::53]",
    { ...env, EVIL: evil },
  );
  const content = readFileSync(env.NET_ENV, "utf8");
  const values = parseEnvironmentFile(content);
  expect(values.get("BOOT_FILE")).toBe("a; touch /tmp/pwned; $(id)`id`");
  expect([values.get("INTERFACE"), values.get("MAC"), values.get("ROUTER"), values.get("METHOD")]).toEqual([
    ...["eth1", "52:54:00:00:00:02"],
    ...["10.0.0.1 10.0.0.2", "dhcp"],
  ]);
  expect(shell(`. ${env.NET_ENV}; echo "$BOOT_FILE|$NEXT_SERVER|$DNS"`)).toBe(
    "a; touch /tmp/pwned; $(id)`id`|10.0.0.5|",
  );
  expect(readFileSync(join(env.NET_ENV, "../resolv.conf"), "utf8")).toBe(
    "search lab\nnameserver 2001:db8::53\nnameserver 9.9.9.9\nnameserver 1.1.1.1\n",
  );
});

scopedTest("the server's URL comes from the command line, else from DHCP", async (scope) => {
  const lease = join(scope.tempDir(), "network.env");
  const origin = (line: string, facts = "") => {
    writeFileSync(lease, facts);
    return shell("server_origin || echo none", line, { NET_ENV: lease });
  };
  expect(origin("diskswarm.server=http://10.0.0.1:8080/x/")).toBe("http://10.0.0.1:8080");
  expect(origin("diskswarm.server=10.0.0.1")).toBe("http://10.0.0.1:6969");
  expect(origin("diskswarm.server=lab.lan:80")).toBe("http://lab.lan:80");
  expect(origin("diskswarm.server=[2001:db8::1]:80")).toBe("http://[2001:db8::1]:80");
  expect(origin("diskswarm.server=[2001:db8::1]")).toBe("http://[2001:db8::1]:6969");
  expect(origin("", "NEXT_SERVER='10.0.0.5'\n")).toBe("http://10.0.0.5:6969");
  expect(origin("", "NEXT_SERVER='10.0.0.5'\nBOOT_FILE='http://10.0.0.6:80/boot.ipxe'\n")).toBe("http://10.0.0.6:80");
  expect(origin("")).toBe("none");
});

scopedTest("what is fetched is whole, or told to be too large for the memory, and gone", async (scope) => {
  const folder = scope.tempDir();
  const content = Buffer.alloc(300_000, "0123456789");
  const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response(content) });
  scope.defer(() => server.stop(true));
  const path = join(folder, "root.squashfs");
  const fetchOnce = async (kibMax: number) => {
    const commands = `FETCH_KIB_MAX=${kibMax}; fetch_once ${server.url}root.squashfs ${path} || echo "$FETCH_PROBLEM"`;
    const text = `. ${FOLDER}/common.sh; . ${FOLDER}/fetch.sh; ${commands}`;
    const env = { PATH: process.env.PATH!, CMDLINE: "", FETCH_LOG: join(folder, "wget.log") };
    // Not waited for in a blocking way: the server is in this process.
    return (await new Response(Bun.spawn(["busybox", "sh", "-c", text], { env }).stdout).text()).trim();
  };
  expect(await fetchOnce(200)).toBe("it is larger than the 0 MiB that this machine has room for");
  expect(existsSync(path)).toBe(false);
  expect(await fetchOnce(1024)).toBe("");
  expect(readFileSync(path).equals(content)).toBe(true);
  expect(Number(shell("memory_to_fill_kib"))).toBeGreaterThan(1024);
});

scopedTest(
  "an image that memory has room for is fetched; one that it has none for is read where that is offered",
  async (scope) => {
    let offer = new Response("");
    const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => offer });
    scope.defer(() => server.stop(true));
    const said = join(scope.tempDir(), "console");
    const attach = async (answer: Response, settings: string) => {
      offer = answer;
      writeFileSync(said, "");
      const commands = `IMAGE_SERVER=${server.url.origin}; attach_once() { say "at $ATTACH_PORT"; }; attach_image || echo fetched`;
      const text = `. ${FOLDER}/common.sh; ${settings}; . ${FOLDER}/attach.sh; modprobe() { :; }; ${commands}`;
      const env = {
        PATH: process.env.PATH!,
        CMDLINE: "",
        CONSOLES: `..${said}`,
        ATTACH_LOG: join(scope.tempDir(), "log"),
      };
      const shown = await new Response(Bun.spawn(["busybox", "sh", "-c", text], { env }).stdout).text();
      return `${readFileSync(said, "utf8")}${shown}`.trim();
    };
    const small = "MEMORY_AMPLE_KIB=99999999999 MEMORY_BESIDE_IMAGE_KIB=99999999999";
    const without = (what: string) => `diskswarm: ${what}\nfetched`;
    expect(await attach(new Response("4420 47000000\n"), "MEMORY_AMPLE_KIB=1")).toBe("fetched");
    expect(await attach(new Response("4420 47000000\n"), "MEMORY_AMPLE_KIB=99999999999")).toBe("fetched");
    expect(await attach(new Response("none", { status: 404 }), small)).toBe("fetched");
    if (!existsSync("/dev/nvme-fabrics"))
      expect(await attach(new Response("4420 47000000\n"), small)).toBe(
        without("this kernel has no nvme_tcp, so the image has to fit into memory"),
      );
    for (const text of ["", "4420", "4420 x", " 4420", "4420 ", "<html>", "4420 $(id)"])
      expect([text, await attach(new Response(text), small)]).toEqual([
        text,
        without(`${server.url.origin} does not say how its image is read: fetching it`),
      ]);
  },
);

test("the address of the server that the kernel is told", () => {
  const address = (origin: string) =>
    shell(
      `IMAGE_SERVER=${origin}; . ${FOLDER}/attach.sh; nslookup() { cat <<END
$ANSWER
END
}; server_address || echo none`,
      "",
      { ANSWER: "Server:\t10.0.0.1\nAddress:\t10.0.0.1:53\n\nName:\tlab.lan\nAddress: 10.0.0.7\nAddress: 10.0.0.8" },
    );
  expect(address("http://10.0.0.5:6969")).toBe("10.0.0.5");
  expect(address("http://10.0.0.5")).toBe("10.0.0.5");
  expect(address("http://[2001:db8::1]:80")).toBe("2001:db8::1");
  expect(address("http://lab.lan:80")).toBe("10.0.0.7");
});
