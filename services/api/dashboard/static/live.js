// What keeps itself up to date: the newest deliveries, and how far a delivery has come.
import { localise } from "./times.js";

const FIRST_MS = 2500;
const LONGEST_MS = 60000; // between two questions, when nothing changes or nobody looks
const GROWTH = 1.25;

// Asks an address again and again, and hands on what is new there. Asks less often while nothing is, and at once when the
// reader comes back.
class Poll {
  #etag = null;
  #pause = FIRST_MS;
  #timer = null;
  #isOver = false;

  constructor(url, onNew, onState) {
    Object.assign(this, { url, onNew, onState });
    this.isPaused = false;
    document.addEventListener("visibilitychange", this.wake);
    for (const sign of ["pointermove", "keydown", "scroll"]) document.addEventListener(sign, this.wake, { passive: true });
    this.#wait();
  }

  // The reader is here: back to the shortest pause.
  wake = () => {
    if (this.#isOver || this.isPaused || document.hidden || this.#pause <= FIRST_MS * 2) return;
    this.#pause = FIRST_MS;
    this.#wait(0);
  };

  pause(isPaused) {
    this.isPaused = isPaused;
    clearTimeout(this.#timer);
    this.#pause = FIRST_MS;
    if (!isPaused) this.#wait(0);
  }

  stop() {
    this.#isOver = true;
    clearTimeout(this.#timer);
  }

  #wait(ms = document.hidden ? LONGEST_MS : this.#pause) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), ms);
  }

  async #ask() {
    const isNew = await this.#fetch().catch(() => (this.onState("Not reached; trying again"), false));
    if (this.#isOver || this.isPaused) return;
    this.#pause = isNew ? FIRST_MS : Math.min(this.#pause * GROWTH, LONGEST_MS);
    this.#wait();
  }

  async #fetch() {
    const headers = this.#etag ? { "If-None-Match": this.#etag } : {};
    const answer = await fetch(this.url, { headers, cache: "no-store", redirect: "manual" });
    if (answer.type === "opaqueredirect") {
      this.stop();
      this.onState("Signed out: reload the page");
      return false;
    }
    if (answer.status !== 304 && !answer.ok) throw new Error(String(answer.status));
    this.onState("Live");
    if (answer.status === 304) return false;
    const isFirst = this.#etag === null;
    this.#etag = answer.headers.get("ETag");
    if (!this.isPaused) this.onNew(parse(await answer.text()));
    return !isFirst;
  }
}

function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

// --- a table of deliveries

function keepTable(live) {
  const body = live.querySelector("tbody");
  const [more, state, button] = [".more", ".live-state", "button"].map((part) => live.querySelector(part));
  let before = live.dataset.newest ? null : keysOf(body); // what the reader has seen of the newest
  let waiting = [];

  const poll = new Poll(live.dataset.live, take, (text) => state.textContent !== text && (state.textContent = text));

  function take(content) {
    const fresh = [...content.querySelectorAll("tr")];
    replaceChanged(body, fresh);
    before ??= new Set(fresh.map((row) => row.dataset.key));
    const isElsewhere = live.dataset.newest || isReading();
    if (isElsewhere) waiting = fresh;
    else show(fresh);
    tell(isElsewhere ? fresh.filter((row) => !before.has(row.dataset.key)).length : 0, fresh.length);
  }

  // New rows would push away what the reader is at.
  function isReading() {
    return body.contains(document.activeElement) || live.getBoundingClientRect().top < -100;
  }

  function show(fresh) {
    arrange(body, fresh);
    before = keysOf(body);
    waiting = [];
    document.querySelector("main > .empty")?.toggleAttribute("hidden", fresh.length > 0);
  }

  function tell(count, most) {
    more.hidden = count === 0;
    more.textContent = `${count}${count === most ? " or more" : ""} new`;
  }

  more.addEventListener("click", (event) => {
    if (live.dataset.newest) return;
    event.preventDefault();
    show(waiting);
    tell(0);
    live.scrollIntoView();
    live.querySelector(".scroll").focus({ preventScroll: true });
  });
  button.hidden = false;
  state.textContent = "Live";
  button.addEventListener("click", () => {
    poll.pause(!poll.isPaused);
    button.textContent = poll.isPaused ? "Resume" : "Pause";
    state.textContent = poll.isPaused ? "Paused" : "Live";
  });
}

function keysOf(body) {
  return new Set([...body.rows].map((row) => row.dataset.key));
}

// In place, so that neither the scroll position nor the focus moves.
function replaceChanged(body, fresh) {
  const now = new Map(fresh.map((row) => [row.dataset.key, row]));
  for (const row of body.rows) {
    const other = now.get(row.dataset.key);
    if (!other || other.dataset.version === row.dataset.version) continue;
    const at = [...row.querySelectorAll("a")].indexOf(document.activeElement);
    const copy = other.cloneNode(true);
    row.replaceChildren(...copy.childNodes);
    row.dataset.version = other.dataset.version;
    localise(row);
    flash(row);
    if (at >= 0) row.querySelectorAll("a")[at]?.focus({ preventScroll: true });
  }
}

// The rows as they are to be; those that are there already stay the same elements.
function arrange(body, fresh) {
  const present = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  let place = body.firstElementChild;
  for (const row of fresh) {
    const kept = present.get(row.dataset.key);
    if (kept && kept === place) place = place.nextElementSibling;
    else body.insertBefore(kept ?? row, place);
    if (!kept) {
      localise(row);
      flash(row);
    }
  }
  while (place) {
    const next = place.nextElementSibling;
    place.remove();
    place = next;
  }
}

function flash(row) {
  row.classList.remove("fresh");
  requestAnimationFrame(() => row.classList.add("fresh"));
}

// --- one delivery

function keepProgress(progress) {
  const poll = new Poll(progress.dataset.progress, (content) => {
    const fresh = content.querySelector("#progress");
    if (fresh.dataset.version === progress.dataset.version) return;
    poll.stop();
    localise(fresh);
    progress.replaceWith(fresh);
    if (fresh.dataset.progress) keepProgress(fresh);
  }, () => {});
}

for (const live of document.querySelectorAll("[data-live]")) keepTable(live);
for (const progress of document.querySelectorAll("[data-progress]")) keepProgress(progress);
