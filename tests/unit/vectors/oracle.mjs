// Answers one JSON line with one JSON line: what JavaScript makes of a body.
//   {"text": …}                       JSON.stringify(JSON.parse(text))
//   {"text": …, "secret": …}          the API page's own verifier: the signature that it expects for this body
import { createHmac } from "node:crypto";
import { createInterface } from "node:readline";

for await (const line of createInterface({ input: process.stdin })) {
  const { text, secret } = JSON.parse(line);
  const body = JSON.stringify(JSON.parse(text));
  const answer = secret === undefined ? body : "sha256=" + createHmac("sha256", secret).update(body).digest("hex");
  process.stdout.write(JSON.stringify(answer) + "\n");
}
