/** Fuzz targets of src/wire but for frames: addresses, bitfields, the handshake, extended messages. */
import { isIP } from "node:net";
import { deepStrictEqual, ok } from "node:assert";
import { PeerFault } from "../../src/errors.ts";
import {
  decodeCompact4,
  decodeCompact6,
  encodeCompact4,
  encodeCompact6,
  formatAddress,
  hostFromBytes,
  isIPv6,
  makeAddress,
  type PeerAddress,
  parseAddress,
} from "../../src/wire/address.ts";
import { Bitfield } from "../../src/wire/bitfield.ts";
import {
  decodeExtensionHandshake,
  decodeMetadataMessage,
  decodePex,
  encodeExtensionHandshake,
  encodeMetadataData,
  encodePex,
  NO_EXTENSIONS,
} from "../../src/wire/extensions.ts";
import { encodeHandshake, HandshakeReader } from "../../src/wire/handshake.ts";
import type { SeededRandom } from "../harness/random.ts";
import { mutate, onlyThrows, randomBytes } from "./mutate.ts";

/** One spelling for each address, the same as the platform's URL parser gives. */
export function fuzzAddress(random: SeededRandom): void {
  const address = randomAddress(random);
  deepStrictEqual(parseAddress(formatAddress(address)), address);
  if (isIPv6(address)) deepStrictEqual(new URL(`http://${formatAddress(address)}/`).hostname, `[${address.host}]`);

  const broken = Buffer.from(mutate(random, Buffer.from(formatAddress(address)))).toString("latin1");
  const read = parseAddress(broken);
  if (read === null) return;
  ok(isIP(read.host) > 0, `${broken} was read as ${read.host}`);
  deepStrictEqual(parseAddress(formatAddress(read)), read);
}

export function fuzzBitfield(random: SeededRandom): void {
  const length = 1 + random.below(70);
  const wire = randomBytes(random, random.below(8) === 0 ? random.below(12) : Math.ceil(length / 8));
  const bitfield = onlyThrows(PeerFault, () => Bitfield.fromWire(wire, length));
  if (bitfield === null) return;
  deepStrictEqual(bitfield.toWire(), wire);
  let count = 0;
  for (let i = 0; i < length; i++) if (bitfield.has(i)) count++;
  deepStrictEqual(bitfield.count, count);
}

export function fuzzHandshake(random: SeededRandom): void {
  const bytes = encodeHandshake(randomBytes(random, 20), randomBytes(random, 20));
  const input = random.below(2) === 0 ? bytes : mutate(random, bytes);
  const whole = new HandshakeReader();
  const split = new HandshakeReader();
  const accepted = onlyThrows(PeerFault, () => whole.push(input)) !== null;
  const acceptedSplit =
    onlyThrows(PeerFault, () => {
      for (let at = 0; at < input.length && !split.done; )
        at += split.push(input, at, Math.min(input.length, at + 1 + random.below(9)));
      return true;
    }) !== null;
  deepStrictEqual(acceptedSplit, accepted);
  if (!accepted) return;
  deepStrictEqual([split.done, split.wanted], [whole.done, whole.wanted]);
  deepStrictEqual(split.infoHash, whole.infoHash);
}

export function fuzzExtensions(random: SeededRandom): void {
  const handshake = {
    ...NO_EXTENSIONS,
    metadataId: 1 + random.below(255),
    packedId: random.below(256),
    client: "x",
    port: 1 + random.below(65535),
    requestsMax: 500,
    yourHost: randomAddress(random).host,
    blockBytes: 16384 << random.below(6),
  };
  const encoded = encodeExtensionHandshake(handshake);
  deepStrictEqual(decodeExtensionHandshake(encoded), handshake);
  const pex = {
    added: Array.from({ length: random.below(5) }, () => ({ address: randomAddress(random), flags: random.below(32) })),
    dropped: Array.from({ length: random.below(5) }, () => randomAddress(random)),
  };
  const encodedPex = encodePex(pex);
  const byFamily = <T>(items: readonly T[], addressOf: (item: T) => PeerAddress): T[] => [
    ...items.filter((item) => !isIPv6(addressOf(item))),
    ...items.filter((item) => isIPv6(addressOf(item))),
  ];
  deepStrictEqual(decodePex(encodedPex), {
    added: byFamily(pex.added, (peer) => peer.address),
    dropped: byFamily(pex.dropped, (address) => address),
  });
  const metadata = encodeMetadataData(randomBytes(random, 1 + random.below(100)), 0)!;
  for (const valid of [encoded, encodedPex, metadata]) {
    const broken = mutate(random, valid);
    for (const decode of [decodeExtensionHandshake, decodePex, decodeMetadataMessage])
      onlyThrows(PeerFault, () => decode(broken));
  }
}

function randomAddress(random: SeededRandom): PeerAddress {
  const isVersion6 = random.below(2) === 0;
  const bytes = randomBytes(random, isVersion6 ? 16 : 4);
  // Zero groups and the mapped prefix are where spellings differ.
  if (isVersion6) for (let i = 0; i < 16; i += 2) if (random.below(2) === 0) bytes.fill(0, i, i + 2);
  if (isVersion6 && random.below(8) === 0) bytes.fill(0, 0, 10).fill(0xff, 10, 12);
  bytes[0]! |= isVersion6 ? 0 : 1;
  bytes[15]! |= 1;
  const address = makeAddress(hostFromBytes(bytes), 1 + random.below(65535))!;
  const [encode, decode] = isIPv6(address) ? [encodeCompact6, decodeCompact6] : [encodeCompact4, decodeCompact4];
  deepStrictEqual(decode(encode([address])), [address]);
  return address;
}
