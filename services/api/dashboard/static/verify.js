// The page that checks a signature. Nothing leaves it: the page's policy forbids connections, and there is no form to send.
import { diagnose } from "./signatures.js";

const page = document.getElementById("verify");
const field = (name) => document.getElementById(`verify-${name}`);
const MARKS = { true: ["Right", "right"], false: ["Wrong", "wrong"], null: ["Not checked", "unchecked"] };

async function check() {
  const arrived = field("at").value;
  const found = await diagnose({
    secret: field("secret").value,
    headers: field("headers").value,
    body: field("body").value,
    at: (arrived ? new Date(arrived).getTime() : Date.now()) / 1000,
    orders: JSON.parse(page.dataset.orders),
  });
  const verdict = document.createElement("p");
  verdict.className = found.ok ? "notice" : "notice fault";
  verdict.textContent = found.ok ? "It verifies." : "It does not verify.";
  field("result").className = "card";
  field("result").replaceChildren(verdict, listed(found.steps));
  field("result").focus();
}

function listed(steps) {
  const list = document.createElement("ol");
  list.className = "verdicts";
  for (const { name, ok, says } of steps) {
    const [mark, kind] = MARKS[ok];
    const item = document.createElement("li");
    item.className = kind;
    item.append(part("span", "mark", mark), part("strong", "", name), part("p", "", says));
    list.append(item);
  }
  return list;
}

function part(tag, kind, words) {
  const element = document.createElement(tag);
  element.className = kind;
  element.textContent = words;
  return element;
}

if (globalThis.crypto?.subtle) {
  field("check").addEventListener("click", check);
  page.hidden = false;
} else {
  document.getElementById("verify-insecure").hidden = false;
}
