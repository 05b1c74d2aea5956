/**
 * The main thread's side of a peer: starts its worker, hands it messages, hears its events.
 */
import { ExitCode, Failure } from "../errors.ts";
import { EventFd } from "../kernel/eventfd.ts";
import { startWorker } from "../kernel/threads.ts";
import type { PeerEvent, PeerHandle, PeerOptions, PeerStats } from "./api.ts";
import { createMailboxMemory, Mailbox } from "./mailbox.ts";
import type { PeerMessage, WorkerData, WorkerReport } from "./worker-messages.ts";

const NOTHING_YET: PeerStats = {
  phase: "check",
  bytesDone: 0,
  bytesTotal: 0,
  bytesFetched: 0,
  bytesReused: 0,
  bytesUploaded: 0,
  bytesReceived: 0,
  bytesSent: 0,
  bytesLeft: 0,
  piecesMissing: 0,
  peers: 0,
};

/**
 * Starts a peer in a thread of its own. `onEvent` hears all that it says; the last is `done` and the end of
 * `finished`, or `failed` and its rejection with the same Failure.
 */
export function startPeer(options: PeerOptions, onEvent: (event: PeerEvent) => void): PeerHandle {
  const mailboxMemory = createMailboxMemory();
  const mailbox = new Mailbox<PeerMessage>(mailboxMemory);
  const bell = EventFd.create();
  const data: WorkerData = { options, mailboxMemory, bellFd: bell.fd };
  const worker = startWorker("peer/worker", data);
  let stats = NOTHING_YET;
  let hasEnded = false;

  const finished = new Promise<{ interrupted: boolean }>((resolve, reject) => {
    const end = (settle: () => void) => {
      if (hasEnded) return;
      hasEnded = true;
      worker.terminate();
      bell.close();
      settle();
    };
    worker.onmessage = (message: MessageEvent<WorkerReport>) => {
      const report = message.data;
      if (report.type === "ended") return end(() => resolve({ interrupted: report.interrupted }));
      if (report.type === "progress" || report.type === "done") stats = report.stats;
      onEvent(report);
      if (report.type === "failed") end(() => reject(new Failure(report.exitCode, report.code, report.message)));
    };
    worker.onerror = (event: ErrorEvent) => {
      end(() => reject(new Failure(ExitCode.failed, "internal", `the peer's thread failed: ${event.message}`)));
    };
  });

  const tell = (message: PeerMessage) => {
    if (!hasEnded && mailbox.send(message)) bell.signal();
  };
  return {
    get stats() {
      return stats;
    },
    addPeers: (addresses, origin) => {
      if (addresses.length > 0) tell({ type: "peers", addresses: [...addresses], origin });
    },
    stop: () => tell({ type: "stop" }),
    finished,
  };
}
