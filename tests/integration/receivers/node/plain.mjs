// Answers each POST with what the functions of the page say about it: Go2's signature, Standard Webhooks, the library.
import { createServer } from "node:http";
import { bodyOk, standardOk } from "./verify.mjs";

const { eventOf } = await import("./library.mjs").catch(() => ({}));
const secret = process.env.WEBHOOK_SECRET;

createServer(async (request, response) => {
  const body = Buffer.concat(await request.toArray());
  const verdicts = [bodyOk(secret, request.headers, body), standardOk(secret, request.headers, body)];
  if (eventOf) verdicts.push(eventOf(secret, request.headers, body) !== null);
  response.end(verdicts.join(" "));
}).listen(process.env.PORT, "127.0.0.1");
