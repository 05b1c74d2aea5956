/** What this executable calls itself. `build.ts` defines the build's name; a run from source has none. */
import manifest from "../package.json" with { type: "json" };

declare const DISKSWARM_BUILD: string | undefined;

export const VERSION: string = manifest.version;
/** First digits of a hash over the sources that went into the executable, or `source`. */
export const BUILD: string = typeof DISKSWARM_BUILD === "string" ? DISKSWARM_BUILD : "source";
