/**
 * The registry of fuzz targets: one round each, from a seeded generator. A target throws where a parser throws
 * something else than it promises, or where what it accepted breaks a property.
 */
import type { SeededRandom } from "../harness/random.ts";
import {
  fuzzBootEntries,
  fuzzFindKernel,
  fuzzCommandLine,
  fuzzEnvironmentFile,
  fuzzNodeReport,
  fuzzPlan,
  fuzzTargetRule,
} from "./boot.ts";
import { fuzzDomainMap, fuzzPartitionTable } from "./disks.ts";
import { fuzzPersonality } from "./fit.ts";
import { fuzzFrames } from "./frames.ts";
import { fuzzPartcloneImage, fuzzSplitFiles, fuzzTorrentInfo } from "./images.ts";
import { fuzzCpio, fuzzElf, fuzzKernelImage } from "./initramfs.ts";
import { fuzzSha1Lanes } from "./sha1.ts";
import { fuzzNvmePdu } from "./nvme.ts";
import { fuzzZstdFrame } from "./zstd.ts";
import { fuzzAnnounceQuery, fuzzHttpHead } from "./tracker.ts";
import { fuzzBencode, fuzzMagnet, fuzzMetainfo, fuzzRanges } from "./torrents.ts";
import { fuzzAddress, fuzzBitfield, fuzzExtensions, fuzzHandshake } from "./wire.ts";

export type FuzzTarget = (random: SeededRandom) => void;

export const TARGETS: Readonly<Record<string, FuzzTarget>> = {
  address: fuzzAddress,
  announce: fuzzAnnounceQuery,
  bencode: fuzzBencode,
  bitfield: fuzzBitfield,
  "boot-entries": fuzzBootEntries,
  "command-line": fuzzCommandLine,
  cpio: fuzzCpio,
  "domain-map": fuzzDomainMap,
  "environment-file": fuzzEnvironmentFile,
  elf: fuzzElf,
  extensions: fuzzExtensions,
  "find-kernel": fuzzFindKernel,
  frames: fuzzFrames,
  handshake: fuzzHandshake,
  head: fuzzHttpHead,
  "kernel-image": fuzzKernelImage,
  magnet: fuzzMagnet,
  metainfo: fuzzMetainfo,
  "node-report": fuzzNodeReport,
  "nvme-pdu": fuzzNvmePdu,
  "partclone-image": fuzzPartcloneImage,
  "partition-table": fuzzPartitionTable,
  personality: fuzzPersonality,
  plan: fuzzPlan,
  ranges: fuzzRanges,
  sha1: fuzzSha1Lanes,
  "target-rule": fuzzTargetRule,
  "split-files": fuzzSplitFiles,
  "torrent-info": fuzzTorrentInfo,
  zstd: fuzzZstdFrame,
};
