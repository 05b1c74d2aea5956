/** The thread of a capture. */
import { loadSigner } from "../torrent/ed25519.ts";
import { type CaptureOptions, capture } from "./capture.ts";
import { serveWork } from "./work-thread.ts";

await serveWork(async (options: CaptureOptions, control) => {
  const signer = options.signKey === null ? null : await loadSigner(options.signKey);
  return capture(options, control, signer);
});
