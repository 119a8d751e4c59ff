// Buttons that copy what an element shows. Without the Clipboard API, which needs https or localhost, they stay hidden.
const COPIED_MS = 2000;

async function copy(button) {
  const shown = document.getElementById(button.dataset.copy);
  const label = button.firstChild;
  const said = label.textContent;
  try {
    await navigator.clipboard.writeText(shown.value ?? shown.textContent);
    label.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(shown);
    shown.select?.();
    label.textContent = "Selected: copy it";
  }
  setTimeout(() => { label.textContent = said; }, COPIED_MS);
}

function offer(root) {
  if (!navigator.clipboard) return;
  for (const button of root.querySelectorAll("button[data-copy]")) {
    button.hidden = false;
    button.setAttribute("aria-live", "polite");
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("button[data-copy]");
  if (button) copy(button);
});
offer(document);
document.addEventListener("htmx:load", (event) => offer(event.detail.elt.parentNode));
