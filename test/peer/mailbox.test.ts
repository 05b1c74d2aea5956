import { describe, expect, test } from "bun:test";
import { createMailboxMemory, Mailbox } from "../../src/peer/mailbox.ts";

describe("mailbox", () => {
  test("messages arrive in order, across the ring's end many times", () => {
    const memory = createMailboxMemory();
    const writer = new Mailbox<{ n: number; text: string }>(memory);
    const reader = new Mailbox<{ n: number; text: string }>(memory);
    expect(reader.receive()).toBeNull();
    for (let n = 0; n < 5000; n++) {
      const message = { n, text: "ü".repeat(n % 500) };
      expect(writer.send(message)).toBe(true);
      expect(reader.receive()).toEqual(message);
    }
    expect(reader.receive()).toBeNull();
  });

  test("a full ring refuses the message whole and goes on when it was read", () => {
    const memory = createMailboxMemory();
    const mailbox = new Mailbox<string>(memory);
    const message = "x".repeat(100_000);
    expect(mailbox.send(message)).toBe(true);
    expect(mailbox.send(message)).toBe(true);
    expect(mailbox.send(message)).toBe(false);
    expect(mailbox.receive()).toBe(message);
    expect(mailbox.send("next")).toBe(true);
    expect(mailbox.receive()).toBe(message);
    expect(mailbox.receive()).toBe("next");
  });
});
