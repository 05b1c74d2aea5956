/** The thread of a verification. */
import { verify } from "./verify.ts";
import { serveWork } from "./work-thread.ts";

await serveWork(verify);
