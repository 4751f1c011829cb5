/** When to try again: 0.5, 1, 2, 4, 8, 8 … seconds, each up to a quarter more, so that pages do not come all at once. */

const FIRST_SECONDS = 0.5;
const LAST_SECONDS = 8;
const JITTER = 0.25;

export class Backoff {
  constructor() {
    this._next = FIRST_SECONDS;
  }

  /** The next wait, in seconds. */
  take() {
    const seconds = this._next * (1 + Math.random() * JITTER);
    this._next = Math.min(this._next * 2, LAST_SECONDS);
    return seconds;
  }

  reset() {
    this._next = FIRST_SECONDS;
  }
}
