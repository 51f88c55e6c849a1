// The gateways under test, which test_node_sdk.py has started, as the SDK sees them.
import OpenAI from "openai";

const { GATEWAY_URL, GATEWAY_KEY, SLOW_GATEWAY_URL } = process.env;
const options = { apiKey: "none", maxRetries: 0, timeout: 120_000 };

/** The bundled model, or an encoder named `embedder`, or both, on the engine under test. */
export const client = new OpenAI({ ...options, baseURL: `${GATEWAY_URL}/v1` });
/** A model that takes minutes for an answer and has one seat; it wants a key. */
export const slow = new OpenAI({
  ...options,
  apiKey: GATEWAY_KEY,
  baseURL: `${SLOW_GATEWAY_URL}/v1`,
});
export const model = "bundled";
export const hello = [{ role: "user", content: "Hello there" }];

/** One value of the slow gateway's metrics; labels are left out. */
export async function slowMetric(name) {
  const headers = { authorization: `Bearer ${GATEWAY_KEY}` };
  const text = await (await fetch(`${SLOW_GATEWAY_URL}/metrics`, { headers })).text();
  const line = text.split("\n").find((candidate) => candidate.startsWith(name));
  return Number(line?.split(" ").at(-1) ?? 0);
}

/** Wait until `condition` holds, for as long as a busy machine may need. */
export async function until(condition, what) {
  const deadline = Date.now() + 60_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited a minute for ${what}`);
    await new Promise((wake) => setTimeout(wake, 20));
  }
}
