/**
 * What a root folder will hold, before it is an archive or an image: paths, and where their content comes from.
 * Folders above a path come by themselves. Paths have no slash at their start, and links lead where they say.
 */
import { assert } from "../../errors.ts";

export type Content =
  /** A file of this machine, copied byte by byte. */
  { readonly from: string; readonly lengthBytes: number } | { readonly bytes: Uint8Array };

export type TreeNode =
  | { readonly type: "folder"; readonly mode: number }
  | { readonly type: "file"; readonly mode: number; readonly content: Content }
  | { readonly type: "link"; readonly target: string }
  | { readonly type: "device"; readonly mode: number; readonly major: number; readonly minor: number };

export class FileTree {
  readonly #nodes = new Map<string, TreeNode>();

  has(path: string): boolean {
    return this.#nodes.has(plain(path));
  }

  folder(path: string, mode = 0o755): void {
    this.#add(path, { type: "folder", mode });
  }

  file(path: string, content: Content, mode = 0o644): void {
    this.#add(path, { type: "file", mode, content });
  }

  text(path: string, text: string, mode = 0o644): void {
    this.file(path, { bytes: new TextEncoder().encode(text) }, mode);
  }

  link(path: string, target: string): void {
    this.#add(path, { type: "link", target });
  }

  device(path: string, mode: number, major: number, minor: number): void {
    this.#add(path, { type: "device", mode, major, minor });
  }

  /** Puts all of another tree below a path. */
  graft(path: string, tree: FileTree): void {
    for (const [below, node] of tree.#nodes) this.#add(`${path}/${below}`, node);
  }

  /** In the order of their paths, so a folder comes before what is in it. */
  entries(): [string, TreeNode][] {
    return [...this.#nodes].sort(([a], [b]) => (a < b ? -1 : 1));
  }

  /** Bytes of all files. */
  get totalBytes(): number {
    return [...this.#nodes.values()].reduce(
      (sum, node) => sum + (node.type === "file" ? lengthOf(node.content) : 0),
      0,
    );
  }

  /** What is there already stays: the same library comes with every program that wants it. */
  #add(path: string, node: TreeNode): void {
    const key = plain(path);
    const above = key.slice(0, Math.max(0, key.lastIndexOf("/")));
    if (above !== "" && !this.#nodes.has(above)) this.folder(above);
    if (!this.#nodes.has(key)) this.#nodes.set(key, node);
  }
}

export function lengthOf(content: Content): number {
  return "bytes" in content ? content.bytes.length : content.lengthBytes;
}

function plain(path: string): string {
  const key = path.replace(/^\/+/, "");
  assert(
    key !== "" && !key.split("/").some((part) => part === "" || part === "." || part === ".."),
    `bad path ${path}`,
  );
  return key;
}
