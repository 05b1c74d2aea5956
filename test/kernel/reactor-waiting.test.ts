import { describe, expect, test } from "bun:test";
import * as abi from "../../src/kernel/abi.ts";
import { EventFd } from "../../src/kernel/eventfd.ts";
import * as libc from "../../src/kernel/libc.ts";
import { BACKENDS, withHarness } from "./harness.ts";

describe.each(BACKENDS)("waiting on %s", (_name, open) => {
  test(
    "a wait with nothing to do ends after its time, not before",
    withHarness(open, (h) => {
      for (const timeoutMs of [0, 0.3, 7, 30]) {
        const start = performance.now();
        expect(h.reactor.run(timeoutMs, h.handler)).toBe(0);
        expect(performance.now() - start).toBeGreaterThanOrEqual(timeoutMs - 0.2);
      }
    }),
  );

  test(
    "waiting for ever with nothing in flight is a bug",
    withHarness(open, (h) => {
      expect(() => h.reactor.run(Number.POSITIVE_INFINITY, h.handler)).toThrow("nothing in flight");
      expect(() => h.reactor.run(-1, h.handler)).toThrow("out of range");
    }),
  );

  test(
    "an eventfd that rings ends the wait, before and after it began to ring",
    withHarness(open, (h) => {
      const bell = EventFd.create();
      bell.signal();
      h.reactor.pollIn(bell.fd, 1);
      expect(h.wait(1) & abi.POLLIN).toBe(abi.POLLIN);
      expect(bell.reset()).toBe(true);
      expect(bell.reset()).toBe(false);
      h.reactor.pollIn(bell.fd, 2);
      expect(h.reactor.run(5, h.handler)).toBe(0);
      bell.signal();
      bell.signal();
      expect(h.wait(2) & abi.POLLIN).toBe(abi.POLLIN);
      bell.close();
    }),
  );

  test(
    "another thread's bell is heard",
    withHarness(open, (h) => {
      const bell = EventFd.create();
      const eventfd = new URL("../../src/kernel/eventfd.ts", import.meta.url).href;
      const source = `import { EventFd } from ${JSON.stringify(eventfd)}; Bun.sleepSync(20); EventFd.of(${bell.fd}).signal();`;
      const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "application/typescript" })));
      h.reactor.pollIn(bell.fd, 1);
      expect(h.wait(1) & abi.POLLIN).toBe(abi.POLLIN);
      worker.terminate();
      bell.close();
    }),
  );

  test(
    "a cancelled poll is -ECANCELED",
    withHarness(open, (h) => {
      const bell = EventFd.create();
      h.reactor.pollIn(bell.fd, 1);
      h.reactor.run(0, h.handler);
      h.reactor.cancel(1);
      expect(h.wait(1)).toBe(-libc.Errno.ECANCELED);
      bell.close();
    }),
  );

  test(
    "polling a file answers at once, a closed descriptor is -EBADF",
    withHarness(open, (h) => {
      h.reactor.pollIn(h.file(0), 1);
      expect(h.wait(1) & abi.POLLIN).toBe(abi.POLLIN);
      h.reactor.pollIn(999, 2);
      expect(h.wait(2)).toBe(-libc.Errno.EBADF);
    }),
  );

  test(
    "the handler may submit; what it submits completes in a later call",
    withHarness(open, (h) => {
      const bell = EventFd.create();
      bell.signal();
      let completions = 0;
      h.reactor.pollIn(bell.fd, 0);
      while (completions < 1000) {
        const before = completions;
        const count = h.reactor.run(1000, (token) => {
          completions++;
          if (completions < 1000) h.reactor.pollIn(bell.fd, token + 1);
        });
        expect(count).toBe(completions - before);
        expect(count).toBe(1);
      }
      expect(() => h.reactor.run(0, () => {})).not.toThrow();
      bell.close();
    }),
  );

  test(
    "run inside run is a bug",
    withHarness(open, (h) => {
      const bell = EventFd.create();
      bell.signal();
      h.reactor.pollIn(bell.fd, 0);
      expect(() => h.reactor.run(1000, () => h.reactor.run(0, () => {}))).toThrow("its own completion handler");
      bell.close();
    }),
  );

  test(
    "a handler that throws loses no other completion",
    withHarness(open, (h) => {
      const bell = EventFd.create();
      bell.signal();
      for (let token = 0; token < 10; token++) h.reactor.pollIn(bell.fd, token);
      let thrown = 0;
      for (let calls = 0; thrown < 10 && calls < 100; calls++) {
        try {
          h.reactor.run(1000, () => {
            thrown++;
            throw new Error("of the handler");
          });
        } catch (error) {
          expect((error as Error).message).toBe("of the handler");
        }
      }
      expect(thrown).toBe(10);
      bell.close();
    }),
  );

  test(
    "more completions at once than any queue holds",
    withHarness(
      open,
      (h) => {
        const bell = EventFd.create();
        const count = 5000;
        for (let token = 0; token < count; token++) h.reactor.pollIn(bell.fd, token);
        expect(h.reactor.run(0, h.handler)).toBe(0);
        expect(h.reactor.inFlight).toBe(count);
        bell.signal();
        for (let token = 0; token < count; token++) expect(h.wait(token) & abi.POLLIN).toBe(abi.POLLIN);
        bell.close();
      },
      8,
    ),
  );

  test(
    "submitting goes on while completions wait",
    withHarness(
      open,
      (h) => {
        const bell = EventFd.create();
        bell.signal();
        const count = 3000;
        for (let token = 0; token < count; token++) h.reactor.pollIn(bell.fd, token);
        for (let token = 0; token < count; token++) expect(h.wait(token) & abi.POLLIN).toBe(abi.POLLIN);
        bell.close();
      },
      8,
    ),
  );

  test(
    "numbers out of range are bugs, not wrapped",
    withHarness(open, (h) => {
      const { address } = h.buffer(16);
      expect(() => h.reactor.read(0, address, 16, -1, 1)).toThrow("offset out of range");
      expect(() => h.reactor.read(0, address, 0, 0, 1)).toThrow("length out of range");
      expect(() => h.reactor.read(0, address, 2 ** 32, 0, 1)).toThrow("length out of range");
      expect(() => h.reactor.write(0, address, 16, 2 ** 53, 1)).toThrow("offset out of range");
      expect(() => h.reactor.recv(-1, address, 16, true, 1)).toThrow("descriptor out of range");
      expect(() => h.reactor.sync(0, 2 ** 31)).toThrow("token out of range");
      expect(() => h.reactor.sync(0, -1)).toThrow("token out of range");
      expect(h.reactor.inFlight).toBe(0);
    }),
  );

  test(
    "closing with something in flight is a bug",
    withHarness(open, (h) => {
      const bell = EventFd.create();
      h.reactor.pollIn(bell.fd, 1);
      expect(() => h.reactor.close()).toThrow("1 operations in flight");
      h.reactor.cancel(1);
      h.wait(1);
      bell.close();
    }),
  );
});
