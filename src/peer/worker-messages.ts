/** What crosses between `handle.ts` (main thread) and `worker.ts` (reactor thread), besides the public events. */
import type { PeerAddress } from "../wire/address.ts";
import type { PeerEvent, PeerOptions } from "./api.ts";

export type PeerMessage =
  | { readonly type: "peers"; readonly addresses: PeerAddress[]; readonly origin: "tracker" | "lsd" | "user" }
  | { readonly type: "stop" };

export interface WorkerData {
  readonly options: PeerOptions;
  readonly mailboxMemory: SharedArrayBuffer;
  /** eventfd that is written after each message. */
  readonly bellFd: number;
}

export type WorkerReport = PeerEvent | { readonly type: "ended"; readonly interrupted: boolean };
