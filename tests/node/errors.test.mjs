import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { client, hello, model, slow, slowMetric, until } from "./served.mjs";

/** The error that a call fails with. */
async function failure(call) {
  try {
    await call;
  } catch (error) {
    return error;
  }
  assert.fail("the call succeeded");
}

test("a wrong value is a BadRequestError that names the field", async () => {
  for (const stream of [false, true]) {
    const error = await failure(
      client.chat.completions.create({ model, messages: hello, temperature: 7, stream }),
    );
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.ok(error instanceof OpenAI.APIError);
    assert.equal(error.status, 400);
    assert.equal(error.param, "temperature");
    assert.equal(error.type, "invalid_request_error");
    assert.ok(error.requestID);
  }
});

test("too long a conversation has OpenAI's code", async () => {
  const messages = [{ role: "user", content: "word ".repeat(9000) }];
  const error = await failure(client.chat.completions.create({ model, messages }));
  assert.ok(error instanceof OpenAI.BadRequestError);
  assert.equal(error.code, "context_length_exceeded");
});

test("an unknown model is a NotFoundError", async () => {
  const error = await failure(client.chat.completions.create({ model: "gone", messages: hello }));
  assert.ok(error instanceof OpenAI.NotFoundError);
  assert.equal(error.code, "model_not_found");
});

test("a wrong key is an AuthenticationError", async () => {
  const stranger = slow.withOptions({ apiKey: "not-a-key-of-this-server" });
  const error = await failure(stranger.models.list());
  assert.ok(error instanceof OpenAI.AuthenticationError);
  assert.equal(error.code, "invalid_api_key");
});

test("nobody at home is an APIConnectionError", async () => {
  const nobody = client.withOptions({ baseURL: "http://127.0.0.1:9/v1" });
  const error = await failure(nobody.models.list());
  assert.ok(error instanceof OpenAI.APIConnectionError);
});

test("aborting a stream frees its seat", async () => {
  const asked = { model, messages: hello, stream: true };
  const stream = await slow.chat.completions.create(asked);
  let seen = "";
  for await (const chunk of stream) {
    seen += chunk.choices[0].delta.content ?? "";
    if (seen.length > 3) break;
  }
  stream.controller.abort();
  await until(async () => (await slowMetric("vllm:num_requests_running")) === 0, "the seat");

  const controller = new AbortController();
  const options = { signal: controller.signal };
  const pending = failure(slow.chat.completions.create({ ...asked, stream: false }, options));
  await until(async () => (await slowMetric("vllm:num_requests_running")) === 1, "the next one");
  controller.abort();
  assert.ok((await pending) instanceof OpenAI.APIUserAbortError);
  await until(async () => (await slowMetric("vllm:num_requests_running")) === 0, "the seat again");
});
