/** The REST half of the protocol: JSON in, JSON out, errors as exceptions with a sentence to show. */

/**
 * @typedef {object} Described a session as the server tells it
 * @property {string} id
 * @property {string} profile
 * @property {string | null} name
 * @property {"new" | "starting" | "running" | "ended"} state
 * @property {boolean} attached
 * @property {string} title
 * @property {Held | null} held
 * @property {number} created in seconds since 1970
 * @property {{at: number, text: string} | null} attention wanted by its program while nobody was attached
 * @property {{code: number | null, signal: string | null, reason: string | null} | null} exit
 */

/**
 * @typedef {object} Held the session in its sandbox that outlives gateways
 * @property {string} name
 * @property {string} id empty until the session was joined
 */

/**
 * @typedef {object} Me
 * @property {string} user
 * @property {string} method
 * @property {{name: string, description: string, detached: number}[]} profiles
 * @property {number} ssh_port
 */

export class Refused extends Error {
  /**
   * @param {number} status 0 when the server was not reached
   * @param {string} message
   * @param {string[]} [ways] how one can log in, with status 401
   * @param {number} [sshPort]
   */
  constructor(status, message, ways = [], sshPort = 22) {
    super(message);
    this.status = status;
    this.ways = ways;
    this.sshPort = sshPort;
  }

  /** Whether the same request may well be answered later. */
  get passing() {
    return this.status === 0 || this.status >= 500;
  }
}

/**
 * @param {string} path below `api/`
 * @param {string} [method]
 * @param {object} [body]
 * @returns {Promise<any>} the answer; null for an empty one. Throws `Refused`
 */
export async function call(path, method = "GET", body = undefined) {
  /** @type {RequestInit} */
  const request = { method, cache: "no-store" };
  if (body !== undefined) {
    request.headers = { "Content-Type": "application/json" };
    request.body = JSON.stringify(body);
  }
  const response = await reach(`api/${path}`, request);
  if (!response.ok) throw refusal(response.status, await response.text());
  return response.status === 204 ? null : response.json();
}

/**
 * @param {string} url
 * @param {RequestInit} request
 */
export async function reach(url, request) {
  try {
    return await fetch(url, request);
  } catch (error) {
    if (error instanceof DOMException) throw error; // ended by ourselves
    throw new Refused(0, "The gateway cannot be reached.");
  }
}

/**
 * The exception for an answer that is not good. A proxy's own page has no JSON.
 *
 * @param {number} status
 * @param {string} body
 */
export function refusal(status, body) {
  try {
    const { error, login, ssh_port } = JSON.parse(body);
    return new Refused(status, error.message, login, ssh_port);
  } catch {
    return new Refused(status, `The gateway answered with ${status}.`);
  }
}

/**
 * @param {string} id
 * @returns {Promise<string>}
 */
export async function ticket(id) {
  return (await call(`sessions/${encodeURIComponent(id)}/ticket`, "POST", {})).ticket;
}

/**
 * @param {string} id
 * @param {string} path in the sandbox
 */
export function fileUrl(id, path) {
  return `api/sessions/${encodeURIComponent(id)}/files?path=${encodeURIComponent(path)}`;
}

/**
 * The name that a person gave a sandbox; null where the gateway did (`is_given` in config/values.py).
 *
 * @param {string | null} name
 */
export function ownName(name) {
  return name && /^web-[0-9a-f]{10}$/.test(name) ? null : name;
}

/** @param {string} text as programs and the gateway write it: without a capital, perhaps without a stop */
export function asSentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** @param {unknown} error */
export function sentence(error) {
  return error instanceof Refused ? asSentence(error.message) : `The page failed: ${error}`;
}
