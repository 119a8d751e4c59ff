// Times in the reader's own zone, with UTC on hover. The server writes them in UTC.
const inFull = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

function localise(root) {
  for (const time of root.querySelectorAll("time.exact")) {
    time.title = time.textContent;
    time.textContent = inFull.format(new Date(time.dateTime));
    time.classList.remove("exact");
  }
}

localise(document);
document.addEventListener("htmx:load", (event) => localise(event.detail.elt));
