import assert from "node:assert/strict";
import { test } from "node:test";
import { client } from "./served.mjs";

test("embeddings come as floats, base64 underneath", async () => {
  const asked = { model: "embedder", input: ["hello", "one two three"] };
  const plain = await client.embeddings.create({ ...asked, encoding_format: "float" });
  const coded = await client.embeddings.create(asked);
  assert.equal(plain.data.length, 2);
  for (const [index, { embedding }] of coded.data.entries()) {
    assert.deepEqual(Array.from(embedding), plain.data[index].embedding.map(Math.fround));
  }
});
