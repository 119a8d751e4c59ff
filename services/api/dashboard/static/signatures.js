// Which step of verifying a delivery fails, and why. Needs WebCrypto, and nothing of a page: `node` runs it too.

export const TOLERANCE_S = 300;
const SECRET_BYTES = 32;
const MILLISECONDS = 1e11; // more seconds than that are in the year 5138
const text = new TextEncoder();

/**
 * `headers` and `body` as they were pasted; `at` when the request came, in seconds; `orders` the keys of `data` by event.
 * Gives `{ok, steps: [{name, ok, says}]}`; of a step that could not be taken, `ok` is null.
 */
export async function diagnose({ secret, headers, body, at, orders = {} }) {
  const given = parseHeaders(headers);
  const bodies = possibleBodies(body, orders);
  const secrets = possibleSecrets(secret);
  const standard = await findStandard(given, secrets, bodies);
  const own = await findOwn(given["x-webhook-signature"], secrets, bodies);
  const steps = [
    headerStep(given), secretStep(secret), ownStep(given, own, standard, body), timeStep(given["webhook-timestamp"], at),
    standardStep(given, standard, own, body),
  ];
  return { ok: steps.every((step) => step.ok !== false) && steps.some((step) => step.ok && step.signs), steps };
}

// --- what was pasted

/** From lines `Name: value`, options `-H 'Name: value'` of curl, a JSON object, or the environment of CGI; names in lower case. */
export function parseHeaders(pasted) {
  const named = {};
  for (const [name, value] of pairsOf(pasted.trim())) {
    named[name.trim().toLowerCase().replace(/^http_/, "").replaceAll("_", "-")] = String(value).trim();
  }
  return named;
}

function pairsOf(pasted) {
  if (pasted.startsWith("{")) {
    try {
      return Object.entries(JSON.parse(pasted));
    } catch {
      // lines, then
    }
  }
  const lines = pasted.split("\n").map((line) => line.trim().replace(/^-H\s+|\s*\\$/g, "").replace(/^(['"])(.*)\1,?$/, "$2"));
  return lines.filter((line) => line.includes(":")).map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)]);
}

/** Bodies that this one may have been before somebody changed it, each with what was done to it; first itself. */
function possibleBodies(body, orders) {
  const found = [{ body, why: "" }];
  const add = (other, why) => {
    if (other !== undefined && !found.some((each) => each.body === other)) found.push({ body: other, why });
  };
  add(body.replace(/^\ufeff/, ""), "a byte order mark was put in front of the body");
  add(body.replace(/\r?\n$/, ""), "a line break was added at the end of the body");
  add(body.trim(), "white space was added around the body");
  add(`${body}\n`, "the line break at the end of the body was taken away");
  add(body.replaceAll("\r\n", "\n"), "the line breaks in the body were changed");
  add(body.replaceAll(/\r?\n/g, "\r\n"), "the line breaks in the body were changed");
  let parsed;
  try {
    parsed = JSON.parse(body.replace(/^\ufeff/, ""));
  } catch {
    return found;
  }
  if (typeof parsed === "string") add(parsed, "the body was put into a JSON string");
  const compact = JSON.stringify(parsed);
  add(compact, `the body was parsed and written again, ${rewritten(body, compact)}`);
  add(reordered(parsed, orders), "the body was parsed and written again, with its keys in another order");
  return found;
}

function rewritten(body, compact) {
  const withoutSpaces = body.replaceAll(/("(?:[^"\\]|\\.)*")|\s+/g, "$1");
  if (withoutSpaces === compact) return "with other white space between its parts";
  if (/\\u[0-9a-f]{4}/i.test(body)) return "with characters as \\u escapes";
  return "with numbers or characters written in another way";
}

function reordered(payload, orders) {
  const order = orders[payload?.event];
  const data = payload?.data;
  if (!order || !data || typeof data !== "object") return undefined;
  if (Object.keys(data).length !== order.length || !order.every((name) => name in data)) return undefined;
  const sorted = Object.fromEntries(order.map((name) => [name, data[name]]));
  return JSON.stringify({ event: payload.event, timestamp: payload.timestamp, data: sorted });
}

function possibleSecrets(secret) {
  const found = [{ secret, why: "" }];
  const add = (other, why) => {
    if (!found.some((each) => each.secret === other)) found.push({ secret: other, why });
  };
  const bare = secret.trim().replace(/^(['"])(.*)\1$/, "$2");
  add(secret.trim(), "there is white space around your secret");
  add(bare, "there are quotes around your secret");
  if (!bare.startsWith("whsec_")) add(`whsec_${bare}`, "whsec_ is missing at the beginning of your secret: it is part of it");
  return found;
}

// --- signatures

async function hmac(key, message) {
  const imported = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", imported, message));
}

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const base64 = (bytes) => btoa(String.fromCharCode(...bytes));

function keyOf(secret) {
  try {
    return Uint8Array.from(atob(secret.replace(/^whsec_/, "")), (char) => char.charCodeAt(0));
  } catch {
    return undefined;
  }
}

/** Tries secrets and bodies until `matches`; whys of the first that does. */
async function firstMatch(secrets, bodies, matches) {
  for (const { body, why: ofBody } of bodies) {
    for (const { secret, why: ofSecret } of secrets) {
      const match = await matches(secret, body);
      if (match) return { ...match, whys: [ofSecret, ofBody, match.why].filter(Boolean) };
    }
  }
  return undefined;
}

function findOwn(header, secrets, bodies) {
  if (!header) return undefined;
  const bare = header.replace(/^sha256=/i, "");
  let why = "";
  if (bare !== bare.toLowerCase()) why = "the header's digits are in capitals, and we send small ones: compare them in one case";
  else if (!header.startsWith("sha256=")) why = "the header does not begin with sha256= any more";
  return firstMatch(secrets, bodies, async (secret, body) => {
    if (!secret) return undefined;
    return hex(await hmac(text.encode(secret), text.encode(body))) === bare.toLowerCase() ? { why } : undefined;
  });
}

function findStandard(given, secrets, bodies) {
  const { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": header } = given;
  if (!header || !id || !timestamp) return undefined;
  const signatures = header.split(/\s+/);
  return firstMatch(secrets, bodies, async (secret, body) => {
    const key = keyOf(secret);
    if (!key?.length) return undefined;
    const expected = base64(await hmac(key, text.encode(`${id}.${timestamp}.${body}`)));
    const place = signatures.findIndex((signature) => signature.replace(/^v1,/, "") === expected);
    if (place < 0) return undefined;
    const why = signatures[place].startsWith("v1,") ? "" : "the signature does not begin with v1, any more";
    return { why, isPrevious: place > 0 };
  });
}

// --- what is said

function headerStep(given) {
  const name = "The headers are there";
  const names = Object.keys(given);
  if (!names.length) return { name, ok: false, says: "No header could be read. Paste them as lines: Name: value." };
  if (!given["x-webhook-signature"] && !given["webhook-signature"]) {
    return { name, ok: false, says: `Neither X-Webhook-Signature nor webhook-signature is among these ${names.length}. A proxy or a framework may have dropped them.` };
  }
  const missing = ["webhook-id", "webhook-timestamp"].filter((each) => given["webhook-signature"] && !given[each]);
  if (missing.length) return { name, ok: false, says: `${missing.join(" and ")} is missing: webhook-signature covers it.` };
  return { name, ok: true, says: `${names.length} were read.` };
}

function secretStep(secret) {
  const name = "The secret looks like one";
  const bare = secret.trim();
  if (!bare) return { name, ok: false, says: "There is none." };
  if (bare !== secret) return { name, ok: false, says: "There is white space around it, a line break perhaps. Where your program reads it from a file, cut that off." };
  if (!bare.startsWith("whsec_")) return { name, ok: false, says: "It does not begin with whsec_, which is part of it." };
  const bytes = keyOf(bare)?.length;
  if (bytes === undefined) return { name, ok: false, says: "What follows whsec_ is not base64: it was not copied whole, or was changed." };
  if (bytes !== SECRET_BYTES) return { name, ok: false, says: `It stands for ${bytes} bytes, and ours for ${SECRET_BYTES}: it was not copied as it is.` };
  return { name, ok: true, says: "whsec_ and 32 bytes as base64." };
}

function ownStep(given, found, standard, body) {
  const name = "X-Webhook-Signature is that of the body";
  if (!given["x-webhook-signature"]) return { name, ok: null, says: "It is not among the headers that you pasted." };
  if (found) return said(name, found.whys);
  if (standard?.isPrevious) {
    return { name, ok: false, says: "It is made with the new secret alone, and yours is the previous one. Take the new one; it was shown when the secret was rotated." };
  }
  if (standard) return { name, ok: false, says: "The secret and the body are right, as webhook-signature shows: this header is not the one that we sent." };
  const digits = given["x-webhook-signature"].replace(/^sha256=/i, "");
  if (!/^[0-9a-f]{64}$/i.test(digits)) {
    return { name, ok: false, says: `It should be sha256= and 64 hexadecimal digits, and has ${digits.length} characters there: it was cut, or is another header's.` };
  }
  return { name, ok: false, says: unexplained(body) };
}

function standardStep(given, found, own, body) {
  const name = "webhook-signature is that of id, time and body";
  if (!given["webhook-signature"]) return { name, ok: null, says: "It is not among the headers that you pasted." };
  if (!given["webhook-id"] || !given["webhook-timestamp"]) return { name, ok: null, says: "It cannot be checked without webhook-id and webhook-timestamp." };
  if (found?.isPrevious && !found.whys.length) {
    return { name, ok: true, signs: true, says: "It matches, by the signature of the previous secret: yours was rotated. Take the new one before the overlap ends." };
  }
  if (found) return said(name, found.whys);
  if (own && !own.whys.length) {
    return { name, ok: false, says: "The secret and the body are right, as X-Webhook-Signature shows: webhook-id or webhook-timestamp is not what we sent, or is another delivery's." };
  }
  return { name, ok: false, says: unexplained(body) };
}

function said(name, whys) {
  if (!whys.length) return { name, ok: true, signs: true, says: "It matches." };
  return { name, ok: false, says: `It matches as soon as this is undone: ${whys.join("; ")}.` };
}

/** No change that we know of explains it. A body that is as we write it speaks for another secret. */
function unexplained(body) {
  let compact;
  try {
    compact = JSON.stringify(JSON.parse(body));
  } catch {
    return body.trim() ? "The body is no whole JSON: it was cut, or changed. Compare it with the payload on the delivery's page." : "There is no body.";
  }
  if (compact === body) return "The body is written as we write it, so the secret is most likely another one: another webhook's, or one from before a rotation.";
  return "The secret is another one, or the body was changed in what it says and not only in how it is written. Compare it with the payload on the delivery's page.";
}

function timeStep(timestamp, at) {
  const name = "The attempt is recent";
  if (!timestamp) return { name, ok: null, says: "There is no webhook-timestamp, without which nothing says when it was sent." };
  const seconds = Number(timestamp);
  if (!/^[0-9]+$/.test(timestamp)) return { name, ok: false, says: "webhook-timestamp is not a whole number of seconds." };
  if (seconds > MILLISECONDS) return { name, ok: false, says: "webhook-timestamp has too many digits: it counts seconds, not milliseconds." };
  const age = at - seconds;
  if (Math.abs(age) <= TOLERANCE_S) return { name, ok: true, says: `It was sent ${lasting(age)} ${age < 0 ? "after" : "before"} that.` };
  if (age < 0) return { name, ok: false, says: `It is from ${lasting(age)} in the future, and 5 minutes are allowed: the clock of the receiver is slow, or the header was changed.` };
  return { name, ok: false, says: `It was sent ${lasting(age)} before, and receivers refuse what is older than 5 minutes. If it had just arrived, the receiver's clock is fast; if not, say above when it arrived.` };
}

function lasting(seconds) {
  const whole = Math.abs(Math.round(seconds));
  const [unit, word] = [[86400, "days"], [3600, "hours"], [60, "minutes"], [1, "seconds"]].find(([each]) => whole >= 2 * each) ?? [1, "seconds"];
  return `${Math.floor(whole / unit).toLocaleString("en")} ${word}`;
}
