// A request as code to take away: a shell command, and a Python program.

import { BEYOND_OPENAI } from "/playground/settings.js";

/** The request as a curl command for a POSIX shell. */
export function asCurl(origin, request) {
  return [
    `curl ${shell(`${origin}/v1/chat/completions`)} \\`,
    "  --no-buffer \\",
    "  -H 'Content-Type: application/json' \\",
    '  -H "Authorization: Bearer ${LLMKIT_API_KEY:-none}" \\',
    `  -d ${shell(JSON.stringify(request, null, 2))}`,
    "",
  ].join("\n");
}

/** The request as a Python program with the openai client. */
export function asPython(origin, request) {
  const own = Object.entries(request).filter(([name]) => !BEYOND_OPENAI.includes(name));
  const extra = Object.fromEntries(
    Object.entries(request).filter(([name]) => BEYOND_OPENAI.includes(name)),
  );
  const given = own.map(([name, value]) => `    ${name}=${python(value, "    ")},`);
  if (Object.keys(extra).length) given.push(`    extra_body=${python(extra, "    ")},`);
  return [
    "import os",
    "",
    "from openai import OpenAI",
    "",
    "client = OpenAI(",
    `    base_url=${python(`${origin}/v1`)},`,
    '    api_key=os.environ.get("LLMKIT_API_KEY", "none"),',
    ")",
    "stream = client.chat.completions.create(",
    ...given,
    ")",
    "for chunk in stream:",
    "    if chunk.choices:",
    '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
    "print()",
    "",
  ].join("\n");
}

/** A word that a POSIX shell leaves as it is. */
function shell(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A value as Python writes it. JSON's strings are Python's. */
function python(value, indent = "") {
  const inner = `${indent}    `;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) {
    if (!value.length) return "[]";
    const items = value.map((item) => `${inner}${python(item, inner)},\n`);
    return `[\n${items.join("")}${indent}]`;
  }
  if (typeof value === "object") {
    const items = Object.entries(value).map(([name, item]) => `${python(name)}: ${python(item, inner)}`);
    return `{${items.join(", ")}}`;
  }
  return JSON.stringify(value);
}
