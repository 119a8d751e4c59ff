// Times in the reader's own zone, with UTC on hover; relative ones tick. The server writes them in UTC.
const inFull = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

function rounded(seconds) {
  const [size, unit] = units.find(([size]) => seconds >= size) ?? units.at(-1);
  return `${Math.round(seconds / size)} ${unit}`;
}

function ago(seconds) {
  return seconds >= 0 ? `${rounded(seconds)} ago` : `in ${rounded(-seconds)}`;
}

// What is left, to the second: "in 1:42", "in 1:00:05"; "any moment now" once it is over.
function left(seconds) {
  if (seconds < 1) return "any moment now";
  const parts = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60), Math.floor(seconds % 60)];
  const [first, ...others] = parts[0] ? parts : parts.slice(1);
  return `in ${[first, ...others.map((part) => String(part).padStart(2, "0"))].join(":")}`;
}

function tick() {
  if (document.hidden) return;
  const now = Date.now();
  for (const time of document.querySelectorAll("time.ago, time.countdown")) {
    const past = (now - Date.parse(time.dateTime)) / 1000;
    const text = time.classList.contains("ago") ? ago(past) : left(-past);
    if (time.textContent !== text) time.textContent = text;
  }
}

// For what came into the page after it was loaded.
export function localise(root) {
  for (const time of root.querySelectorAll("time.exact")) {
    time.title = time.textContent;
    time.textContent = inFull.format(new Date(time.dateTime));
    time.classList.replace("exact", "local");
  }
  for (const time of root.querySelectorAll("time.ago, time.countdown")) {
    if (time.title.endsWith("UTC") && !time.title.includes("\n")) time.title = `${inFull.format(new Date(time.dateTime))}\n${time.title}`;
  }
  tick();
}

// Fields for a time: the server takes UTC, the reader types what the clock on the wall shows.
function asLocal(moment) {
  return new Date(moment - moment.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

function localiseField(field) {
  const asked = field.dataset.utc;
  const moment = new Date(/[zZ]$|[+-]\d\d:?\d\d$/.test(asked) ? asked : `${asked}Z`);
  if (asked && !isNaN(moment)) field.value = asLocal(moment);
  field.labels[0]?.querySelector(".zone")?.replaceChildren("(your time)");
  field.form.addEventListener("formdata", (event) => {
    if (field.value) event.formData.set(field.name, new Date(field.value).toISOString());
  });
}

localise(document);
for (const field of document.querySelectorAll("input[data-utc]")) localiseField(field);
setInterval(tick, 1000);
document.addEventListener("visibilitychange", tick);
document.addEventListener("htmx:load", (event) => localise(event.detail.elt));
