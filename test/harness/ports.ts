/** Ports chosen by the kernel, so that test files may run side by side. */
import { createServer, type AddressInfo } from "node:net";

const given = new Set<number>();

/** A TCP port that is free now and was not handed out before by this process. */
export async function freePort(host = "127.0.0.1"): Promise<number> {
  for (;;) {
    const port = await askKernel(host);
    if (given.has(port)) continue;
    given.add(port);
    return port;
  }
}

function askKernel(host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, host, () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
