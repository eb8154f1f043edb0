// The form for new jobs: files, or an image that is here, a model, options.

import { segment } from "./api.js";
import { drawBox } from "./drawing.js";
import { byId, element, say, setText, showProblem } from "./elements.js";
import { bytes } from "./figures.js";
import { ModelChoice } from "./models.js";
import { clearRegion, optionCount, readOptions } from "./options.js";

export class Submission {
  #models = new ModelChoice(byId("models"));
  #files = [];
  #jobs = new Map(); // image id -> the last job seen of it
  #upload;
  #onJob;

  /** upload(file, request): send it and submit. onJob(job): one was submitted. */
  constructor({ upload, onJob }) {
    this.#upload = upload;
    this.#onJob = onJob;
    byId("submission").addEventListener("submit", (event) => this.#submit(event));
    byId("file").addEventListener("change", (event) => this.#take(event.target.files));
    byId("known-image").addEventListener("change", () => this.#choose(byId("known-image").value));
    byId("draw-roi").addEventListener("click", () => this.#draw());
    byId("options").addEventListener("input", () => this.#tellOptions());
    this.#installDrop();
    this.#refresh();
  }

  /** The model and options as they stand. Raises Error where a field is wrong. */
  get request() {
    return { model: this.#models.chosen, options: readOptions() };
  }

  refreshModels() {
    return this.#models.refresh();
  }

  /** An image that was read can be segmented again. */
  learn(job) {
    if (!job.image) return;
    const known = this.#jobs.get(job.image_id);
    if (known && (known.links.image_dzi || !job.links.image_dzi)) return;
    this.#jobs.set(job.image_id, job);
    if (!known) byId("known-image").append(element("option", { value: job.image_id, textContent: job.file_name }));
  }

  useImage(job) {
    this.learn(job);
    byId("known-image").value = job.image_id;
    this.#choose(job.image_id);
    byId("submit").focus();
  }

  chooseFile() {
    byId("file").focus();
    byId("file").click();
  }

  #installDrop() {
    const drop = byId("drop");
    const over = (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      drop.classList.toggle("over", event.type !== "dragleave" && event.type !== "drop");
      if (event.type === "drop") this.#take(event.dataTransfer.files);
    };
    for (const type of ["dragenter", "dragover", "dragleave", "drop"]) document.addEventListener(type, over);
  }

  #take(files) {
    if (!files.length) return;
    this.#files = [...files];
    byId("known-image").value = "";
    this.#refresh();
    say(`${this.#chosen} chosen`);
  }

  get #chosen() {
    return this.#files.length === 1 ? this.#files[0].name : `${this.#files.length} files`;
  }

  #choose(image) {
    if (image) this.#files = [];
    byId("file").value = "";
    this.#refresh();
  }

  get #image() {
    return byId("known-image").value || null;
  }

  #refresh() {
    const chosen = this.#files.length > 0;
    const sum = this.#files.reduce((size, file) => size + file.size, 0);
    byId("drop").classList.toggle("filled", chosen);
    setText(byId("drop-title"), chosen ? this.#chosen : "Drop an image, or choose one");
    setText(byId("drop-hint"), chosen ? `${bytes(sum)}, ready to upload` : "Slides, GeoTIFF, TIFF, JPEG, PNG, of any size");
    const drawable = Boolean(this.#jobs.get(this.#image)?.links.image_dzi);
    byId("draw-roi").disabled = !drawable;
    setText(byId("roi-hint"), drawable
      ? "Nothing outside it is segmented."
      : "Nothing outside it is segmented. A box can be drawn on an image that is already here.");
    setText(byId("submit"), chosen ? "Upload and segment" : "Segment");
    this.#tellOptions();
  }

  #tellOptions() {
    const changed = optionCount();
    setText(byId("options").querySelector("summary"), changed ? `Options (${changed} changed)` : "Options");
  }

  async #draw() {
    const box = await drawBox(this.#jobs.get(this.#image), byId("roi").value);
    if (box) byId("roi").value = box;
    this.#tellOptions();
  }

  async #submit(event) {
    event.preventDefault();
    showProblem(byId("submission-problem"), null);
    try {
      const { request } = this;
      if (!this.#files.length && !this.#image) throw new Error("Choose an image first: a file, or one that is already here.");
      if (!request.model) throw new Error("Choose a model.");
      if (this.#files.length) this.#files.forEach((file) => this.#upload(file, request));
      else await this.#again({ image: this.#image, ...request });
      this.#clear();
    } catch (problem) {
      showProblem(byId("submission-problem"), problem);
    }
  }

  async #again(request) {
    byId("submit").disabled = true;
    try {
      const job = await segment(request);
      say(`${job.file_name} is in the queue`);
      this.#onJob(job);
    } finally {
      byId("submit").disabled = false;
    }
  }

  #clear() {
    this.#files = [];
    byId("file").value = "";
    byId("known-image").value = "";
    clearRegion();
    this.#refresh();
  }
}
