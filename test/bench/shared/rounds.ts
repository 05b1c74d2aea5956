/**
 * Contestants take turns, round after round, so that whatever else the machine does falls on all of them.
 * The order turns by one each round, so that nobody always follows the same predecessor.
 */

/** Results by name, one per round. `measure` is called for one name at a time. */
export async function takeTurns<Name extends string, Result>(
  names: readonly Name[],
  rounds: number,
  measure: (name: Name, round: number) => Promise<Result>,
): Promise<Map<Name, Result[]>> {
  const results = new Map<Name, Result[]>(names.map((name) => [name, []]));
  for (let round = 1; round <= rounds; round++) {
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(turn + round - 1) % names.length]!;
      console.error(`round ${round} of ${rounds}: ${name}`);
      results.get(name)!.push(await measure(name, round));
    }
  }
  return results;
}
