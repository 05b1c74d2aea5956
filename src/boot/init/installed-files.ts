/** What is asked of a filesystem on the disk that was written. Paths are its own, without a slash at their start. */
export interface InstalledFiles {
  exists(path: string): boolean;
  /** Text of an ordinary file; null where there is none, or a long one. */
  read(path: string): string | null;
  /** Names in a folder, sorted; none where there is no such folder. */
  list(path: string): string[];
}
