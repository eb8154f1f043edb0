// One file on its way to the service, by tus: it goes on where it was after a lost connection, a pause or a reload.
//
// The library keeps the address of an unfinished upload in localStorage under the file's name, size and date; when the
// same file is chosen again, only what is missing is sent.

import { Problem, urlOf } from "./api.js";

const CHUNK_BYTES = 32 * 1024 ** 2;
const RETRY_MS = [0, 1000, 2000, 4000, 8000, 15000, 30000, 30000, 60000, 60000];

export class Upload {
  #tus;
  #onChange;
  state = "waiting"; // waiting, sending, paused, lost, sent, failed
  sent = 0;
  problem = null;
  resumed = false;

  constructor(file, onChange) {
    this.file = file;
    this.#onChange = onChange;
    this.#tus = new tus.Upload(file, {
      endpoint: urlOf("uploads").href,
      chunkSize: CHUNK_BYTES,
      retryDelays: RETRY_MS,
      metadata: { filename: file.name },
      removeFingerprintOnSuccess: true,
      onProgress: (sent) => this.#set({ state: "sending", sent, problem: null }),
      onShouldRetry: (error) => this.#shouldRetry(error),
      onSuccess: () => this.#set({ state: "sent", sent: file.size, problem: null }),
      onError: (error) => this.#fail(error),
    });
    this.online = () => this.state === "lost" && this.start();
    addEventListener("online", this.online);
  }

  get size() {
    return this.file.size;
  }

  /** The id that POST /segment takes. */
  get id() {
    return new URL(this.#tus.url).pathname.split("/").at(-1);
  }

  async start() {
    this.#set({ state: "sending", problem: null });
    if (!this.#tus.url) {
      const [earlier] = await this.#tus.findPreviousUploads();
      if (earlier) {
        this.#tus.resumeFromPreviousUpload(earlier);
        this.resumed = true;
      }
    }
    if (this.state === "sending") this.#tus.start();
  }

  async pause() {
    this.#set({ state: "paused" });
    await this.#tus.abort();
  }

  /** Gives it up, here and at the service. */
  async discard() {
    removeEventListener("online", this.online);
    await this.#tus.abort(this.#tus.url !== null).catch(() => {});
  }

  #shouldRetry(error) {
    const status = error.originalResponse?.getStatus() ?? 0;
    const again = status === 0 || status === 409 || status === 423 || status >= 500;
    if (again && this.state === "sending") this.#set({ state: "lost" });
    return again;
  }

  #fail(error) {
    if (this.state === "paused") return;
    const status = error.originalResponse?.getStatus() ?? 0;
    if (status === 0) return this.#set({ state: "lost", problem: null });
    this.#set({ state: "failed", problem: problemOf(error.originalResponse, status) });
  }

  #set(changes) {
    if (this.state === "paused" && changes.state === "sending" && "sent" in changes) return;
    Object.assign(this, changes);
    this.#onChange(this);
  }
}

function problemOf(answer, status) {
  try {
    const said = JSON.parse(answer.getBody());
    return new Problem(status, said.code, said.detail);
  } catch {
    return new Problem(status, `http_${status}`, answer.getBody() || `the service answered ${status}`);
  }
}

/** What earlier visits left unfinished: [{name, size, key, url}]. */
export async function unfinishedUploads() {
  const found = await tus.defaultOptions.urlStorage.findAllUploads();
  const here = urlOf("uploads").href;
  return found
    .filter((entry) => entry.uploadUrl?.startsWith(here) && entry.metadata?.filename)
    .map((entry) => ({ name: entry.metadata.filename, size: entry.size, key: entry.urlStorageKey, url: entry.uploadUrl }));
}

export async function forgetUpload({ key, url }) {
  await tus.defaultOptions.urlStorage.removeUpload(key);
  await tus.Upload.terminate(url, { retryDelays: null }).catch(() => {});
}
