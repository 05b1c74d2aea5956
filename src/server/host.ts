/** By what name a client reached this server. */

/** The Host header where it is a plain host and port; it ends up in files and texts, so anything else is none. */
export function hostOf(request: Request): string | null {
  const host = request.headers.get("Host");
  return host !== null && /^([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?$/.test(host) ? host : null;
}
