// The files that a result can be had as. What does not lie there yet is made when asked for, and then fetched.

import { ask, readLink, urlOf } from "./api.js";
import { button, element, progressBar, say, setProgress, showProblem } from "./elements.js";
import { bytes } from "./figures.js";
import { formatColors } from "./permalink.js";

const PAUSE_S = 1;
const LONGEST_PAUSE_S = 10;

export class Downloads {
  #list = element("ul", { className: "file-list" });
  #problem = element("div");
  #told = null;
  #files = [];
  #colors = "";
  #closing = new AbortController();

  constructor() {
    const title = element("h2", { textContent: "Downloads" });
    this.element = element("section", { className: "panel downloads", "aria-label": "Downloads", hidden: true },
      element("div", { className: "panel-head" }, title), this.#problem, this.#list);
  }

  close() {
    this.#closing.abort();
  }

  /** Of the legend: a file that shows colours is made in these. */
  set colors(colors) {
    const before = this.#colors;
    this.#colors = formatColors(colors);
    if (before !== this.#colors) this.#fill();
  }

  #fill() {
    const rows = this.#files.map((file) => new FileRow(colored(file, this.#colors), this.#closing.signal));
    this.#list.replaceChildren(...rows.map((row) => row.element));
  }

  async show(job) {
    this.element.hidden = job.state !== "succeeded" || !job.links.files;
    if (this.element.hidden || this.#told === job.id) return;
    this.#told = job.id;
    try {
      this.#files = (await readLink(job.links.files, this.#closing.signal)).files;
      this.#fill();
      showProblem(this.#problem, null);
    } catch (problem) {
      this.#told = null;
      if (problem.name !== "AbortError") showProblem(this.#problem, problem);
    }
  }
}

/** A file as it is listed, or as it will be in other colours. */
function colored(file, colors) {
  if (!colors || !file.options?.includes("colors") || file.state === "not_offered") return file;
  return { ...file, state: "absent", bytes: null, link: `${file.link}?colors=${encodeURIComponent(colors)}`, title: `${file.title}, in your colours` };
}

class FileRow {
  #file;
  #signal;
  #state = element("div", { className: "file-state" });
  #problem = element("div", { role: "alert" });

  constructor(file, signal) {
    this.#file = file;
    this.#signal = signal;
    this.element = element("li", { data: { file: file.name } },
      element("div", { className: "file-words" },
        element("span", { className: "file-title", textContent: file.title }),
        element("code", { textContent: file.name })),
      this.#state, this.#problem);
    this.#show(file);
    if (file.state === "building") this.#prepare(false);
  }

  #show(file) {
    this.#file = file;
    this.element.dataset.state = file.state;
    const how = { ready: () => this.#ready(), absent: () => this.#absent(), building: () => this.#building() };
    this.#state.replaceChildren((how[file.state] ?? (() => this.#notOffered()))());
  }

  #ready() {
    const { link, name, bytes: size } = this.#file;
    const words = size ? bytes(size) : "Open";
    const tree = name.endsWith(".zarr");
    if (tree) return button("Copy URL", (event) => copyAddress(event.currentTarget, urlOf(link).href), { className: "small", "aria-label": `Copy the URL of ${name}` });
    return element("a", { className: "button small", href: urlOf(link).href, download: "", textContent: words, "aria-label": `Download ${name}, ${words}` });
  }

  #absent() {
    return button("Prepare", () => this.#prepare(true), { className: "small", "aria-label": `Prepare ${this.#file.name}` });
  }

  #building() {
    const bar = progressBar(`Making ${this.#file.name}`);
    setProgress(bar, percentOf(this.#file));
    return element("span", { className: "file-building" }, element("span", { textContent: "Making it" }), bar);
  }

  #notOffered() {
    const why = this.#file.why ?? "not offered for this result";
    return element("span", { className: "muted file-why", textContent: why });
  }

  async #prepare(fetchAfter) {
    const { name } = this.#file;
    showProblem(this.#problem, null);
    this.#show({ ...this.#file, state: "building" });
    say(`${name} is being made`);
    try {
      const size = await this.#whenReady();
      this.#show({ ...this.#file, state: "ready", bytes: size });
      say(`${name} is ready`);
      if (fetchAfter) this.#state.querySelector("a")?.click();
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.#show({ ...this.#file, state: "absent" });
      showProblem(this.#problem, problem);
    }
  }

  /** Asks for one byte until there is one; answers the size of the whole. */
  async #whenReady() {
    for (;;) {
      const answer = await ask(this.#file.link, { headers: { Accept: "*/*", Range: "bytes=0-0" }, signal: this.#signal });
      if (answer.status !== 202) {
        await answer.body?.cancel();
        return Number(answer.headers.get("Content-Range")?.split("/")[1]) || Number(answer.headers.get("Content-Length")) || null;
      }
      const said = await answer.json().catch(() => ({}));
      this.#show({ ...this.#file, state: "building", fraction: said.fraction });
      await pause(Math.min(LONGEST_PAUSE_S, Number(answer.headers.get("Retry-After")) || PAUSE_S));
    }
  }
}

/** A Zarr store is opened by its URL, in a program. */
async function copyAddress(from, address) {
  const copied = await navigator.clipboard?.writeText(address).then(() => true, () => false);
  from.replaceWith(copied ? from : element("code", { className: "address", textContent: address }));
  if (copied) from.textContent = "Copied";
  say(copied ? "URL copied" : address);
}

/** null until something can be told. */
const percentOf = (file) => (file.fraction ? 100 * file.fraction : null);

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
