/**
 * Sent within the page itself, so it runs before anything else has arrived: takes the link's secret out of the address,
 * and sees to it that a part which does not arrive is requested again, and is missed in words.
 */
(() => {
  const WAITS_MS = [500, 2000];
  // Nothing is drawn before the styles of index.html are there; one that is added later keeps nothing from being drawn.
  const STALLED_MS = 8000;
  const [, kind, secret] = /^#(login|watch)=(.+)$/.exec(location.hash) ?? [];
  if (secret) history.replaceState(null, "", location.pathname + location.search);
  const page = new URL(document.currentScript?.dataset["page"] ?? "", document.baseURI).href;
  // Requested now, the answers are there when the modules are. Before a login by a link there are none.
  const answers = secret || !page.endsWith("/page.js") ? [] : ["me", "sessions"];
  /** @param {string} path */
  const ask = async (path) => {
    const answer = await fetch(`api/${path}`, { cache: "no-store", priority: "high" });
    return answer.ok ? answer.json() : null;
  };
  const early = new Map(answers.map((path) => [path, ask(path).catch(() => null)]));
  // After a login in another window they may be another user's. What login.js posts here itself does not come back.
  const logins = new BroadcastChannel("sshgate.login");
  logins.addEventListener("message", () => early.clear());
  const [loginTicket, watchSecret] = [kind === "login" ? secret : null, kind === "watch" ? secret : null];
  Object.assign(globalThis, { loginTicket, watchSecret, logins, early, begun: Date.now() });

  /** Which parts have arrived or not: a style has a `sheet` in both cases. @type {Map<EventTarget | null, boolean>} */
  const arrived = new Map();
  for (const kind of ["load", "error"]) {
    document.addEventListener(kind, ({ target }) => arrived.set(target, kind === "load"), { capture: true });
  }

  /** Another address of the same file: browsers remember a module that did not arrive. @param {string} url @param {number} attempt */
  const address = (url, attempt) => (attempt ? url.replace(/\/at\/(\w+)[^/]*\//, `/at/$1-${attempt}/`) : url);
  /** @param {number} milliseconds */
  const pause = (milliseconds) => new Promise((resume) => setTimeout(resume, milliseconds));

  /** @template T @param {(attempt: number) => Promise<T>} get @returns {Promise<T>} */
  const persistently = async (get) => {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await get(attempt);
      } catch (error) {
        if (attempt === WAITS_MS.length) throw error;
        await pause(WAITS_MS[attempt]);
      }
    }
  };

  /** @param {HTMLLinkElement} link */
  const styled = (link) =>
    persistently((attempt) => {
      if (attempt) {
        const next = /** @type {HTMLLinkElement} */ (link.cloneNode());
        next.href = address(link.href, attempt);
        link.replaceWith(next);
        link = next;
      }
      return new Promise((resolve, reject) => {
        if (arrived.get(link) === true) resolve(null);
        if (arrived.get(link) === false) reject(new Error(link.href));
        link.addEventListener("load", resolve);
        link.addEventListener("error", reject);
        if (!attempt) setTimeout(reject, STALLED_MS);
      });
    });

  document.addEventListener("DOMContentLoaded", async () => {
    try {
      /** @type {HTMLLinkElement[]} */
      const sheets = [...document.querySelectorAll("link")].filter(({ rel }) => rel === "stylesheet");
      await Promise.all(sheets.map(styled));
      await persistently((attempt) => import(address(page, attempt)));
    } catch {
      const words = document.getElementById("loading-text");
      if (words) words.textContent = "A part of this page did not arrive.";
      document.getElementById("loading")?.classList.add("late");
    }
  });
})();
