/** The REST half of the protocol: JSON in, JSON out, errors as exceptions with a sentence to show. */

/**
 * @typedef {object} Described a session as the server has it
 * @property {string} id
 * @property {string} profile
 * @property {string | null} name
 * @property {"new" | "starting" | "running" | "ended"} state
 * @property {boolean} attached
 * @property {string} title
 * @property {string} [label] what its user calls it
 * @property {string} [last] its last line of output
 * @property {string | null} [source] the address that is attached
 * @property {import("./home.js").Ends} [ends]
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

const LONGEST_MS = 30_000;
// After this time a person wants to know what is waited for.
export const LATE_MS = 8000;
// What the page cannot begin without is requested again after 0.5, 2 and 8 s.
const AGAIN_MS = 500;
const AGAIN_UNTIL_MS = 10_000;

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
 * @param {number} [longest] how many ms it may take
 * @returns {Promise<any>} the answer; null for an empty one. Throws `Refused`
 */
export async function call(path, method = "GET", body = undefined, longest = LONGEST_MS) {
  const found = method === "GET" ? await early(path) : null;
  if (found !== null) return found;
  /** @type {RequestInit} */
  const request = { method, cache: "no-store", signal: AbortSignal.timeout(longest) };
  if (body !== undefined) {
    request.headers = { "Content-Type": "application/json" };
    request.body = JSON.stringify(body);
  }
  const response = await reach(`api/${path}`, request);
  if (!response.ok) throw refusal(response.status, await response.text());
  return response.status === 204 ? null : response.json();
}

/**
 * The same, for what the page cannot begin without: it is not ended by a line that is lost for a moment.
 *
 * @param {string} path
 * @returns {Promise<any>}
 */
export async function persistently(path) {
  const begun = Date.now();
  for (let wait = AGAIN_MS; ; wait *= 4) {
    try {
      return await call(path);
    } catch (error) {
      if (!(error instanceof Refused && error.passing) || Date.now() - begun > AGAIN_UNTIL_MS) throw error;
      await new Promise((go) => setTimeout(go, wait));
    }
  }
}

/**
 * What boot.js has requested before this module was there, once.
 *
 * @param {string} path
 * @returns {Promise<any>} null where that failed, was refused, takes too long or is too old
 */
async function early(path) {
  /** @type {{early: Map<string, Promise<any>>, begun: number}} */
  const { early: answers, begun } = /** @type {any} */ (globalThis);
  const answer = answers.get(path);
  if (answer === undefined) return null;
  const found = await Promise.race([answer, new Promise((late) => setTimeout(late, LONGEST_MS, null))]);
  // A page may have slept meanwhile, or another window logged in. A refusal may be over.
  const good = answers.delete(path) && found !== null && Date.now() - begun < LONGEST_MS;
  // All are of one moment and one user, or none is used.
  if (!good) answers.clear();
  return good ? found : null;
}

/**
 * A part of the page that is fetched when it is first wanted.
 *
 * @template T
 * @param {Promise<T>} part
 * @returns {Promise<T | null>} null where it does not arrive, or not soon; it may be there later
 */
export function soon(part) {
  const late = new Promise((go) => setTimeout(go, LATE_MS, null));
  return Promise.race([part.catch(() => null), late]);
}

/**
 * @param {string} url
 * @param {RequestInit} request
 */
export async function reach(url, request) {
  try {
    return await fetch(url, request);
  } catch (error) {
    if (error instanceof DOMException && error.name !== "TimeoutError") throw error; // ended by ourselves
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
 * @param {Record<string, string>} query `path` in the sandbox, and others
 */
export function filesRoute(id, query) {
  return `sessions/${encodeURIComponent(id)}/files?${new URLSearchParams(query)}`;
}

/**
 * @param {string} id
 * @param {string} path in the sandbox
 */
export function fileUrl(id, path) {
  return `api/${filesRoute(id, { path })}`;
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

/** How a session has ended, as a sentence. @param {{code: number | null, signal: string | null, reason: string | null} | undefined} exit */
export function ending(exit) {
  if (exit === undefined) return "The gateway has closed this terminal; how it ended is not known.";
  if (exit.reason) return asSentence(exit.reason);
  if (exit.signal) return `Ended by signal ${exit.signal}.`;
  return exit.code ? `Ended with status ${exit.code}.` : "Ended.";
}

/** @param {unknown} error */
export function sentence(error) {
  return error instanceof Refused ? asSentence(error.message) : `The page failed: ${error}`;
}
