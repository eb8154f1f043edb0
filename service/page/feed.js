// What changes, as it changes: server-sent events, and polling for as long as there are none.
//
// A browser reconnects by itself and names the last event it saw (Last-Event-ID). Where it gives up (a proxy that knows
// no streams, an error), the feed polls and tries the stream again every RETRY_MS.

import { urlOf } from "./api.js";

const POLL_MS = 2000;
const RETRY_MS = 30000;

export class Feed {
  #path;
  #onJob;
  #poll;
  #onState;
  #source = null;
  #polling = null;
  #retry = null;

  /** onJob(job): one changed. poll(): asks for everything anew; a promise. onState: "live", "polling" or "offline". */
  constructor(path, { onJob, poll, onState = () => {} }) {
    this.#path = path;
    this.#onJob = onJob;
    this.#poll = poll;
    this.#onState = onState;
  }

  open() {
    this.close();
    const source = new EventSource(urlOf(this.#path));
    source.addEventListener("open", () => this.#flow());
    source.addEventListener("job", (event) => this.#onJob(JSON.parse(event.data)));
    source.addEventListener("error", () => this.#interrupted(source));
    this.#source = source;
  }

  close() {
    this.#source?.close();
    this.#source = null;
    clearTimeout(this.#retry);
    this.#stopPolling();
  }

  #flow() {
    this.#stopPolling();
    this.#onState("live");
    this.#poll().catch(() => {}); // what happened before the stream began
  }

  #interrupted(source) {
    if (source !== this.#source) return;
    if (this.#polling === null) this.#pollOnce();
    if (source.readyState !== EventSource.CLOSED) return;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.open(), RETRY_MS);
  }

  async #pollOnce() {
    this.#polling = setTimeout(() => this.#pollOnce(), POLL_MS);
    const turn = this.#polling;
    const state = await this.#poll().then(() => "polling", () => "offline");
    if (turn === this.#polling) this.#onState(state);
  }

  #stopPolling() {
    clearTimeout(this.#polling);
    this.#polling = null;
  }
}
