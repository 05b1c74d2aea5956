/** The table of what an image takes of each part of its disk, for a terminal. */
import type { AreaRow } from "../image/area-table.ts";
import { formatBytes } from "../units.ts";

/** One line for each part, under a head line; none where nothing is known of parts. */
export function areaLines(rows: readonly AreaRow[]): string[] {
  if (rows.length === 0) return [];
  const cells = rows.map((row) => [
    row.name,
    row.filesystem || "-",
    formatBytes(row.lengthBytes),
    formatBytes(row.sentBytes),
    formatBytes(row.zeroBytes),
    formatBytes(row.unusedBytes),
    row.why,
  ]);
  const table = [["part", "holds", "size", "sent", "zeroed", "unused", "taken"], ...cells];
  const widths = table[0].map((_, column) => Math.max(...table.map((line) => line[column].length)));
  return table.map((line) =>
    line
      .map((cell, column) => padded(cell, column, widths[column]))
      .join("  ")
      .trimEnd(),
  );
}

/** Sizes to the right, words to the left. */
function padded(cell: string, column: number, width: number): string {
  return column >= 2 && column <= 5 ? cell.padStart(width) : cell.padEnd(width);
}
