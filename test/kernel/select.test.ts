import { expect, test } from "bun:test";
import { Failure } from "../../src/errors.ts";
import { Errno } from "../../src/kernel/errno.ts";
import { openReactor } from "../../src/kernel/select.ts";
import { openUring, uringAvailable } from "../../src/kernel/uring.ts";
import { RingUnavailable } from "../../src/kernel/uring-ring.ts";

/** A kernel or sandbox that answers io_uring_setup(2) with this errno. */
const refusing = (errno: number) => (queueDepth: number) => openUring(queueDepth, { setup: () => -errno });

test("auto falls back to epoll and says why", () => {
  const reactor = openReactor("auto", 64, refusing(Errno.EPERM));
  expect(reactor.backend).toBe("epoll");
  expect(reactor.fallbackReason).toContain("kernel.io_uring_disabled");
  reactor.close();
});

test("every refusal has its reason", () => {
  const reason = (errno: number) => uringAvailable({ setup: () => -errno });
  expect(reason(Errno.ENOSYS)).toEqual({ ok: false, reason: expect.stringContaining("ENOSYS") });
  expect(reason(Errno.EPERM).reason).toContain("seccomp");
  expect(reason(Errno.ENOMEM).reason).toContain("ulimit -l");
  expect(reason(Errno.EINVAL).reason).toContain("EINVAL: invalid argument");
});

test("uring that is not to be had is a failure with exit code 1 and the reason", () => {
  try {
    openReactor("uring", 64, refusing(Errno.ENOSYS));
    expect.unreachable();
  } catch (error) {
    expect(error).toBeInstanceOf(Failure);
    expect((error as Failure).exitCode).toBe(1);
    expect((error as Failure).message).toMatch(/^--io uring: .*ENOSYS.*; use --io auto or --io epoll$/);
  }
});

test("what is no refusal of the kernel is not swallowed", () => {
  const broken = () => {
    throw new TypeError("a bug");
  };
  expect(() => openReactor("auto", 64, broken)).toThrow("a bug");
});

test("epoll is taken when asked for, without a reason", () => {
  const reactor = openReactor("epoll", 64);
  expect([reactor.backend, reactor.fallbackReason]).toEqual(["epoll", null]);
  reactor.close();
});

test.skipIf(!uringAvailable().ok)("auto takes io_uring where the kernel has it", () => {
  const reactor = openReactor("auto", 64);
  expect([reactor.backend, reactor.fallbackReason]).toEqual(["uring", null]);
  reactor.close();
});

test.skipIf(!uringAvailable().ok)("flags that this kernel does not know are a refusal", () => {
  expect(() => openUring(64, { setupFlags: 1 << 30 })).toThrow(RingUnavailable);
});
