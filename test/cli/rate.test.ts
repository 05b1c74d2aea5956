/** The rate and the time that is left, from totals over time. */
import { expect, test } from "bun:test";
import { RateMeter } from "../../src/cli/rate.ts";

test("nothing is known at first", () => {
  const meter = new RateMeter();
  expect(meter.bytesPerSecond).toBe(0);
  meter.add(500, 0);
  expect(meter.bytesPerSecond).toBe(0);
  expect(meter.etaSeconds(100)).toBeNull();
  expect(meter.etaSeconds(0)).toBe(0);
});

test("a steady rate", () => {
  const meter = new RateMeter();
  for (let second = 0; second <= 60; second++) meter.add(second * 1000, second * 1000);
  expect(meter.bytesPerSecond).toBe(1000);
  expect(meter.etaSeconds(4500)).toBe(5);
});

test("a stall shows after the window", () => {
  const meter = new RateMeter();
  for (let second = 0; second <= 10; second++) meter.add(second * 1000, second * 1000);
  for (let second = 11; second <= 20; second++) meter.add(10_000, second * 1000);
  expect(meter.bytesPerSecond).toBe(0);
  expect(meter.etaSeconds(1)).toBeNull();
});

test("a total that shrinks begins anew", () => {
  const meter = new RateMeter();
  meter.add(1_000_000, 0);
  meter.add(0, 1000);
  meter.add(500, 2000);
  expect(meter.bytesPerSecond).toBe(500);
});
