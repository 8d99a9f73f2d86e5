// What OpenAI's client for Node gets of a server. Run by clients.py: node clients.mjs URL MODEL
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";

const [url, model] = process.argv.slice(2);
const client = new OpenAI({
  baseURL: url,
  apiKey: process.env.LLMKIT_API_KEY ?? "unused",
  maxRetries: 0,
  timeout: 120_000,
});
const messages = [{ role: "user", content: "What is the capital of France?" }];
const tool = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string", maxLength: 20 } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};
const ask = (more) =>
  client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 60, ...more });

const checks = {
  async chat() {
    const answer = await ask({});
    assert.match(answer.choices[0].message.content, /Paris/);
    assert.ok(answer._request_id);
  },
  async streaming() {
    let text = "";
    let usage;
    for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.match(text, /Paris/);
    assert.ok(usage.completion_tokens > 3);
  },
  async abort() {
    const stream = await ask({ stream: true, max_tokens: 500 });
    for await (const chunk of stream) {
      if (chunk.choices.length) break;
    }
    stream.controller.abort();
  },
  async tools_named() {
    const named = { type: "function", function: { name: "get_weather" } };
    const answer = await ask({ tools: [tool], tool_choice: named });
    const call = answer.choices[0].message.tool_calls[0];
    assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["city"]);
  },
  async structured_output() {
    const schema = {
      type: "object",
      properties: { age: { type: "integer", minimum: 0, maximum: 150 } },
      required: ["age"],
      additionalProperties: false,
    };
    const answer = await ask({
      response_format: { type: "json_schema", json_schema: { name: "age", schema, strict: true } },
    });
    assert.equal(typeof JSON.parse(answer.choices[0].message.content).age, "number");
  },
  async logprobs() {
    const answer = await ask({ logprobs: true, top_logprobs: 2 });
    assert.equal(answer.choices[0].logprobs.content.length, answer.usage.completion_tokens);
  },
  async models() {
    const names = [];
    for await (const each of client.models.list()) names.push(each.id);
    assert.ok(names.includes(model));
  },
  async embeddings_error() {
    await assert.rejects(
      client.embeddings.create({ model, input: "x" }),
      (error) => [400, 404].includes(error.status) && Boolean(error.code),
    );
  },
  async errors() {
    await assert.rejects(
      ask({ model: "other" }),
      (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
    );
  },
  async responses() {
    const answer = await client.responses.create({
      model,
      input: "What is the capital of France?",
      temperature: 0,
      max_output_tokens: 40,
    });
    assert.match(answer.output_text, /Paris/);
  },
  async batches() {
    const line = {
      custom_id: "one",
      method: "POST",
      url: "/v1/chat/completions",
      body: { model, messages, max_tokens: 20 },
    };
    const file = await client.files.create({
      file: await toFile(Buffer.from(JSON.stringify(line)), "asks.jsonl"),
      purpose: "batch",
    });
    let batch = await client.batches.create({
      input_file_id: file.id,
      endpoint: "/v1/chat/completions",
      completion_window: "24h",
    });
    for (let turn = 0; batch.status !== "completed"; turn++) {
      assert.ok(turn < 120 && batch.status !== "failed", batch.status);
      await new Promise((done) => setTimeout(done, 500));
      batch = await client.batches.retrieve(batch.id);
    }
    const text = await (await client.files.content(batch.output_file_id)).text();
    assert.equal(JSON.parse(text).custom_id, "one");
  },
};

const found = {};
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    found[name] = "ok";
  } catch (error) {
    found[name] = `${error.name}: ${String(error.message).slice(0, 300)}`;
  }
}
console.log(JSON.stringify({ "openai (node)": found }));
