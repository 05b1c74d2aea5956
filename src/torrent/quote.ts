/** Foreign text in an error message: quoted, cut, and without anything that could end a line or drive a terminal. */

const SHOWN_MAX = 64;

export function quote(text: string): string {
  const shown = text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}...` : text;
  // JSON escapes the controls below 0x20; those from 0x7f to 0x9f and the line separators are left to be escaped here.
  return JSON.stringify(shown).replace(
    /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
