import assert from "node:assert/strict";
import { test } from "node:test";
import { client, hello, model } from "./served.mjs";

const ASKED = [{ role: "user", content: "What is the weather in Rome?" }];
const PARAMETERS = {
  type: "object",
  properties: { city: { type: "string", maxLength: 30 } },
  required: ["city"],
  additionalProperties: false,
};
const WEATHER = { name: "get_weather", description: "Weather of a city", parameters: PARAMETERS };

test("a stream says what an answer in one piece says", async () => {
  const asked = { model, messages: hello, temperature: 0 };
  const whole = await client.chat.completions.create(asked);
  assert.equal(whole.object, "chat.completion");
  assert.ok(whole.choices[0].message.content.trim());
  assert.equal(whole.choices[0].finish_reason, "stop");
  assert.ok(whole._request_id);

  const options = { stream: true, stream_options: { include_usage: true } };
  const chunks = [];
  for await (const chunk of await client.chat.completions.create({ ...asked, ...options })) {
    chunks.push(chunk);
  }
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(chunks.at(-1).usage.completion_tokens, whole.usage.completion_tokens);
});

test("the streaming helper puts several choices together", async () => {
  const stream = client.chat.completions.stream({
    model,
    messages: hello,
    n: 2,
    logprobs: true,
    temperature: 0,
  });
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices.length, 2);
  for (const choice of final.choices) {
    assert.ok(choice.message.content.trim());
    assert.ok(choice.logprobs.content.every((entry) => entry.logprob <= 0));
  }
});

for (const stream of [false, true]) {
  test(`runTools calls the function and takes its result, stream ${stream}`, async () => {
    const cities = [];
    const weather = ({ city }) => {
      cities.push(city);
      return { weather: "sunny" };
    };
    const runner = client.chat.completions.runTools({
      model,
      messages: ASKED,
      temperature: 0,
      stream,
      tools: [{ type: "function", function: { ...WEATHER, function: weather, parse: JSON.parse } }],
    });
    const text = await runner.finalContent();
    assert.deepEqual(cities, ["Rome"]);
    assert.ok(text.includes("sunny"), text);
    const roles = runner.messages.map((message) => message.role);
    assert.deepEqual(roles, ["user", "assistant", "tool", "assistant"]);
  });
}

test("a required call is made whatever the model would say", async () => {
  const answer = await client.chat.completions.create({
    model,
    messages: hello,
    temperature: 1.3,
    seed: 3,
    tools: [{ type: "function", function: { ...WEATHER, strict: true } }],
    tool_choice: "required",
    parallel_tool_calls: false,
  });
  const [call] = answer.choices[0].message.tool_calls;
  assert.equal(answer.choices[0].finish_reason, "tool_calls");
  assert.equal(call.function.name, "get_weather");
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["city"]);
});

test("the parsing helper takes an answer held to a schema", async () => {
  const schema = {
    type: "object",
    properties: { kind: { enum: ["cat", "dog"] }, legs: { type: "integer", maximum: 9 } },
    required: ["kind", "legs"],
    additionalProperties: false,
  };
  const answer = await client.chat.completions.parse({
    model,
    messages: hello,
    max_tokens: 200,
    response_format: { type: "json_schema", json_schema: { name: "pet", strict: true, schema } },
  });
  const { parsed } = answer.choices[0].message;
  assert.ok(["cat", "dog"].includes(parsed.kind));
  assert.ok(Number.isInteger(parsed.legs));
});

test("completions stream as they answer", async () => {
  const asked = { model, prompt: ["The sky is", "One two"], max_tokens: 6, temperature: 0 };
  const whole = await client.completions.create(asked);
  const texts = ["", ""];
  for await (const chunk of await client.completions.create({ ...asked, stream: true })) {
    for (const choice of chunk.choices) texts[choice.index] += choice.text;
  }
  assert.deepEqual(
    texts,
    whole.choices.map((choice) => choice.text),
  );
});
