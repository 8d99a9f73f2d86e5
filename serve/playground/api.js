// Requests to the server that sent this page, and what it answers, errors included, as they are.

/** An answer that is not one: the server's own words, and how they came. */
export class ApiError extends Error {
  /**
   * @param {number} status HTTP status; 0 when there was no answer, or it came within a stream.
   * @param {string} text the body as it came.
   * @param {string | null} requestId the answer's x-request-id.
   */
  constructor(status, text, requestId = null) {
    const told = errorObject(text);
    super(told?.message ?? (text.trim() || `HTTP status ${status}`));
    this.status = status;
    this.type = told?.type ?? null;
    this.code = told?.code ?? null;
    this.param = told?.param ?? null;
    this.requestId = requestId;
    this.body = text;
  }

  /** "400 · invalid_request_error · context_length_exceeded": whatever of it there is. */
  get title() {
    const parts = [this.status || null, this.type, this.code, this.param && `param ${this.param}`];
    return parts.filter((part) => part !== null && part !== "").join(" · ");
  }
}

function errorObject(text) {
  try {
    const error = JSON.parse(text).error;
    return typeof error === "string" ? { message: error } : error;
  } catch {
    return null;
  }
}

/** Ask for a path; the answer if it is a good one, else an ApiError. */
export async function ask(path, { key = "", body = null, signal = null } = {}) {
  const headers = {};
  if (key) headers.authorization = `Bearer ${key}`;
  if (body) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
      cache: "no-store",
      credentials: "omit",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, `The server does not answer (${error.message}).`);
  }
  if (!answer.ok) {
    throw new ApiError(answer.status, await answer.text(), answer.headers.get("x-request-id"));
  }
  return answer;
}

/**
 * The chunks of a streamed answer, as objects, in order.
 *
 * Throws an ApiError for an error event, and for a stream that ends before it is done.
 */
export async function* chunks(answer) {
  const requestId = answer.headers.get("x-request-id");
  if (!answer.headers.get("content-type")?.startsWith("text/event-stream")) {
    throw new ApiError(answer.status, await answer.text(), requestId);
  }
  for await (const data of events(answer.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(0, data, requestId);
    yield chunk;
  }
  throw new ApiError(0, "The stream broke off before the answer was complete.", requestId);
}

/** The data of server-sent events. Lines may end in LF or CRLF; other fields are passed over. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await read(reader);
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines.map((one) => one.replace(/\r$/, ""))) {
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    // Leaving early, as after an error event, ends the request too.
    reader.cancel().catch(() => {});
  }
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, `The connection broke off (${error.message}).`);
  }
}
