// Times below charts in the reader's own zone, with UTC on hover; and those that a bar shows on hover.
const forms = {
  time: { hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
  moment: { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
  day: { day: "numeric", month: "short", timeZone: "UTC" }, // a day of the statistics is one of UTC
};
const inFull = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function localise(root) {
  for (const time of root.querySelectorAll("time[data-form]")) {
    time.title = `${time.dateTime.replace("T", " ").replace("Z", "")} UTC`;
    time.textContent = new Intl.DateTimeFormat(undefined, forms[time.dataset.form]).format(new Date(time.dateTime));
    delete time.dataset.form;
  }
  for (const title of root.querySelectorAll("title[data-at]")) {
    title.textContent = inFull.format(new Date(title.dataset.at)) + title.textContent.slice(title.textContent.indexOf(": "));
    delete title.dataset.at;
  }
}

localise(document);
document.addEventListener("htmx:load", (event) => localise(event.detail.elt));
