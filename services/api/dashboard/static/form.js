// Forms: one that its page sends at once, those that are sent once, and rows that can be added.

// Not while a browser only prepares a page that nobody has opened yet.
function sendNow(form) {
  if (document.prerendering) document.addEventListener("prerenderingchange", () => form.requestSubmit(), { once: true });
  else form.requestSubmit();
}

for (const form of document.querySelectorAll("form[data-send-now]")) sendNow(form);

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form[data-once]")) return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});

// A page that the browser kept, and shows again, may be sent again.
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

for (const button of document.querySelectorAll("button[data-adds-row]")) button.hidden = false;

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("button[data-adds-row]");
  if (!button) return;
  const rows = button.parentElement.querySelector(".pairs");
  const row = rows.lastElementChild.cloneNode(true);
  for (const field of row.querySelectorAll("input")) field.value = "";
  for (const field of row.querySelectorAll("select")) field.selectedIndex = 0;
  hideSecrets(row);
  rows.append(row);
  row.querySelector("input").focus();
});

function hideSecrets(row) {
  const kind = row.querySelector('[name="header_kind"]');
  if (kind) row.querySelector('[name="header_value"]').type = kind.value === "secret" ? "password" : "text";
}

document.addEventListener("change", (event) => {
  const row = event.target.closest?.(".pair");
  if (row) hideSecrets(row);
});

// What is wrong with a field while it is typed is said by the server; the field is marked by it.
document.addEventListener("htmx:afterSwap", (event) => {
  const field = document.querySelector(`[hx-target="#${event.target.id}"]`);
  if (field) field.setAttribute("aria-invalid", String(Boolean(event.target.querySelector(".fault"))));
});

// A browser that has dealt with autofocus already does not look at the list of what is wrong.
document.getElementById("faults")?.focus();
