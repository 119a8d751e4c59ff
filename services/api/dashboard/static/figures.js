// A part of a page that asks for itself again and again: not while nobody sees it, nor while it is paused.
const AGAIN = "look-again";

function keep(part) {
  const [state, button] = ["[role=status]", "button"].map((each) => document.querySelector(`[data-about="${part.id}"] ${each}`));
  let isPaused = false;

  function tell(text) {
    if (state.textContent !== text) state.textContent = text;
  }

  button.hidden = false;
  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.textContent = isPaused ? "Resume" : "Pause";
    if (isPaused) tell("Paused");
    else htmx.trigger(part, AGAIN);
  });
  part.addEventListener("htmx:beforeRequest", (event) => {
    if (isPaused || document.hidden) event.preventDefault();
  });
  part.addEventListener("htmx:beforeSwap", (event) => {
    const { pathname } = new URL(event.detail.xhr.responseURL);
    if (pathname !== part.getAttribute("hx-get")) location.reload(); // signed out: to the page that asks to sign in
    tell(event.detail.isError ? "Not reached; trying again" : "Live");
  });
  part.addEventListener("htmx:sendError", () => tell("Not reached; trying again"));
  document.addEventListener("visibilitychange", () => document.hidden || htmx.trigger(part, AGAIN));
}

for (const part of document.querySelectorAll("[data-figures]")) keep(part);
