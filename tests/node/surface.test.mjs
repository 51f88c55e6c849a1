import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI, { toFile } from "openai";
import { client, hello, model, until } from "./served.mjs";

test("models are listed and found", async () => {
  const ids = [];
  for await (const found of client.models.list()) ids.push(found.id);
  assert.ok(ids.includes(model));
  assert.equal((await client.models.retrieve(ids[0])).id, ids[0]);
});

test("a response is stored, gone on with, and deleted", async () => {
  const asked = { model, input: "My name is Anna.", temperature: 0 };
  const first = await client.responses.create(asked);
  assert.equal(first.status, "completed");
  assert.ok(first.output_text.trim());
  const second = await client.responses.create({
    model,
    input: "What is my name?",
    previous_response_id: first.id,
    temperature: 0,
  });
  assert.equal(second.previous_response_id, first.id);
  assert.ok(second.usage.input_tokens > first.usage.input_tokens);
  const items = [];
  for await (const item of client.responses.inputItems.list(second.id)) items.push(item);
  assert.ok(items.length >= 1);
  assert.equal((await client.responses.retrieve(first.id)).output_text, first.output_text);
  await client.responses.delete(first.id);
  await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
});

test("a streamed response has its events in order", async () => {
  const stream = client.responses.stream({ model, input: "Hello", temperature: 0 });
  const events = [];
  let text = "";
  for await (const event of stream) {
    events.push(event);
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  const final = await stream.finalResponse();
  assert.deepEqual(
    events.map((event) => event.sequence_number),
    events.map((_, index) => index),
  );
  assert.equal(events.at(-1).type, "response.completed");
  assert.equal(text, final.output_text);
});

test("a batch of a file is worked off", async () => {
  const line = {
    custom_id: "one",
    method: "POST",
    url: "/v1/chat/completions",
    body: { model, messages: hello, max_tokens: 4 },
  };
  const file = await client.files.create({
    file: await toFile(Buffer.from(JSON.stringify(line)), "in.jsonl"),
    purpose: "batch",
  });
  let batch = await client.batches.create({
    input_file_id: file.id,
    endpoint: "/v1/chat/completions",
    completion_window: "24h",
  });
  await until(async () => {
    batch = await client.batches.retrieve(batch.id);
    return ["completed", "failed"].includes(batch.status);
  }, "the batch to end");
  assert.equal(batch.status, "completed");
  const result = JSON.parse(await (await client.files.content(batch.output_file_id)).text());
  assert.equal(result.custom_id, "one");
  assert.equal(result.response.status_code, 200);
});
