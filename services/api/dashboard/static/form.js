// A form that is sent as soon as its page is shown to somebody: not while a browser only prepares the page.
function send(form) {
  if (document.prerendering) document.addEventListener("prerenderingchange", () => form.requestSubmit(), { once: true });
  else form.requestSubmit();
}

for (const form of document.querySelectorAll("form[data-send-now]")) send(form);
