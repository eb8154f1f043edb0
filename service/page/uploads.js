// The uploads of this visit as rows above the jobs, and those that an earlier one left unfinished.

import { segment } from "./api.js";
import { button, element, progressBar, say, setProgress, setText, showProblem } from "./elements.js";
import { bytes } from "./figures.js";
import { forgetUpload, unfinishedUploads, Upload } from "./upload.js";

export class UploadList {
  #place;
  #onJob;
  #asked;
  #earlier = [];

  /** onJob(job): an upload has become one. asked(): the model and options that the form has now. */
  constructor(place, { onJob, asked }) {
    this.#place = place;
    this.#onJob = onJob;
    this.#asked = asked;
    addEventListener("beforeunload", (event) => this.#place.querySelector("[data-state=sending]") && event.preventDefault());
  }

  add(file, request) {
    this.#forgetEarlier(file);
    const row = new UploadRow(file, request, { onJob: this.#onJob, asked: this.#asked });
    this.#place.prepend(row.element);
    row.upload.start();
  }

  async showUnfinished(onChoose) {
    this.#earlier = (await unfinishedUploads()).map((entry) => {
      const line = unfinishedRow(entry, onChoose);
      this.#place.append(line);
      return { entry, line };
    });
  }

  #forgetEarlier(file) {
    for (const { entry, line } of this.#earlier) {
      if (entry.name === file.name && entry.size === file.size) line.remove();
    }
  }
}

function unfinishedRow(entry, onChoose) {
  const line = element("li", { className: "job upload", data: { state: "unfinished" } });
  const forget = async () => {
    line.remove();
    await forgetUpload(entry);
  };
  line.append(
    element("div", { className: "job-main" },
      element("h3", { textContent: entry.name }),
      element("p", { className: "muted", textContent: `Its upload (${bytes(entry.size)}) was interrupted. Choose the same file again and it goes on from there.` })),
    element("div", { className: "job-actions" },
      button("Choose", onChoose, { className: "small", "aria-label": `Choose ${entry.name} again` }),
      button("Forget", forget, { className: "small", "aria-label": `Forget the upload of ${entry.name}` })));
  return line;
}

const WORDS = {
  waiting: () => "Waiting",
  sending: (upload) => `${upload.resumed ? "Resumed: " : ""}${bytes(upload.sent)} of ${bytes(upload.size)}`,
  paused: (upload) => `Paused at ${bytes(upload.sent)} of ${bytes(upload.size)}`,
  lost: (upload) => `The connection was lost at ${bytes(upload.sent)} of ${bytes(upload.size)}; it goes on by itself`,
  sent: () => "Uploaded; handing it over",
  failed: () => "The upload failed",
};

class UploadRow {
  #request;
  #onJob;
  #asked;
  #words = element("p", { className: "job-progress" });
  #problem = element("div", { role: "alert" });
  #toggle = button("Pause", () => this.#pauseOrGo(), { className: "small" });
  #again = button("Try again", () => this.#tryAgain(), { className: "small", hidden: true });
  #stop;

  constructor(file, request, { onJob, asked }) {
    this.#request = request;
    this.#onJob = onJob;
    this.#asked = asked;
    this.#stop = button("Discard", () => this.#discard(), { className: "small", "aria-label": `Discard the upload of ${file.name}` });
    this.bar = progressBar(`Upload of ${file.name}`);
    this.element = element("li", { className: "job upload" },
      element("div", { className: "job-main" },
        element("h3", { textContent: file.name }), this.bar, this.#words, this.#problem),
      element("div", { className: "job-actions" }, this.#toggle, this.#again, this.#stop));
    this.upload = new Upload(file, () => this.#show());
    this.#show();
  }

  #show() {
    const { upload } = this;
    this.element.dataset.state = upload.state;
    setProgress(this.bar, upload.size ? (100 * upload.sent) / upload.size : 0);
    setText(this.#words, WORDS[upload.state](upload));
    setText(this.#toggle, upload.state === "sending" || upload.state === "waiting" ? "Pause" : "Resume");
    this.#toggle.setAttribute("aria-label", `${this.#toggle.textContent} the upload of ${upload.file.name}`);
    this.#toggle.hidden = ["sent", "failed"].includes(upload.state);
    this.#again.hidden = upload.state !== "failed";
    showProblem(this.#problem, upload.problem);
    if (upload.state === "sent") this.#submit();
  }

  #pauseOrGo() {
    if (this.upload.state === "sending") this.upload.pause();
    else this.upload.start();
  }

  /** With what the form has now: an option may be what was refused. */
  async #tryAgain() {
    if (this.upload.state === "failed") return this.upload.start();
    this.#request = this.#asked();
    return this.#submit();
  }

  async #submit() {
    this.#again.hidden = true;
    try {
      const job = await segment({ upload: this.upload.id, ...this.#request });
      this.element.remove();
      say(`${this.upload.file.name} is uploaded and in the queue`);
      this.#onJob(job);
    } catch (problem) {
      this.element.dataset.state = "refused";
      setText(this.#words, "Uploaded, but refused. Change the form if need be, and try again.");
      showProblem(this.#problem, problem);
      this.#again.hidden = false;
    }
  }

  async #discard() {
    this.element.remove();
    await this.upload.discard();
  }
}
