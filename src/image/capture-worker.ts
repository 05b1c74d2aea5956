/** The thread of a capture. */
import { capture } from "./capture.ts";
import { serveWork } from "./work-thread.ts";

serveWork(capture);
