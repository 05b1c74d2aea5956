/** The part of the package `bencode` that is used; it brings no types of its own. */
declare module "bencode" {
  export type Encodable =
    | number
    | string
    | Uint8Array
    | readonly Encodable[]
    | { readonly [key: string]: Encodable | undefined };
  const bencode: {
    /** Canonical bencode of plain data: keys sorted, text as UTF-8, undefined entries left out. */
    encode(data: Encodable): Uint8Array;
    /** Recursive and without checks: for tests alone; what arrives from outside goes through `BencodeCursor`. */
    decode(data: Uint8Array): unknown;
  };
  export default bencode;
}
