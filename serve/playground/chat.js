// A conversation: turns of one question and one answer, or two side by side.

import { ApiError, ask, chunks } from "/playground/api.js";
import { TokenText } from "/playground/tokens.js";

const PATH = "/v1/chat/completions";

/** A question and its answers, and where they stand on the page. */
export class Turn {
  /** @param {string} question the user's message. */
  constructor(question) {
    this.question = question;
    this.answers = [];
    this.element = make("section", "turn");
    const asked = make("div", "question");
    asked.append(make("span", "hidden", "You: "), make("p", "", question));
    this.side = make("div", "answers");
    this.element.append(asked, this.side);
  }

  /** Put answers in place of those there are; one for each model. */
  answer(answers) {
    this.answers = answers;
    this.side.replaceChildren(...answers.map((answer) => answer.element));
  }
}

/**
 * The messages that a side has seen, up to now. A turn that failed is not among them; one that was
 * asked of a single model counts for both sides.
 */
export function history(turns, side) {
  return turns.flatMap((turn) => {
    const answer = turn.answers[side] ?? turn.answers[0];
    if (!answer || answer.error) return [];
    return [
      { role: "user", content: turn.question },
      { role: "assistant", content: answer.text },
    ];
  });
}

/** One model's answer, filled as it comes. */
export class Answer {
  /** @param {object} request the body of the request; its `stream` must be true. */
  constructor(request) {
    this.request = request;
    this.text = "";
    this.error = null;
    this.element = make("article", "answer");
    this.element.setAttribute("aria-label", `Answer of ${request.model}`);
    this.body = make("div", "body");
    this.figures = make("p", "figures");
    this.element.append(make("h2", "", request.model), this.body, this.figures);
  }

  /** Ask and show what comes, until the answer ends, fails, or `signal` is aborted. */
  async run(key, signal) {
    this.clock = { sent: performance.now(), first: null, last: null, chunks: 0, tokens: 0 };
    this.element.setAttribute("aria-busy", "true");
    let ending = null;
    try {
      for await (const chunk of chunks(await ask(PATH, { key, body: this.request, signal }))) {
        this.take(chunk);
        ending = chunk.choices?.[0]?.finish_reason ?? ending;
      }
    } catch (error) {
      if (error.name === "AbortError") ending = "stopped";
      else this.fail(error);
    }
    this.end(ending);
  }

  take(chunk) {
    if (chunk.usage) this.clock.tokens = chunk.usage.completion_tokens;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const { content, reasoning = choice.delta?.reasoning_content } = choice.delta ?? {};
    const tokens = choice.logprobs?.content ?? [];
    if (content || reasoning || tokens.length) {
      const now = performance.now();
      this.clock.first ??= now;
      this.clock.last = now;
      this.clock.chunks += Math.max(1, tokens.length);
    }
    if (reasoning) this.think(reasoning);
    if (tokens.length) {
      this.tokens ??= new TokenText(this.body.appendChild(make("p", "text")));
      for (const token of tokens) this.tokens.add(token);
    } else if (content) {
      this.plain ??= this.body.appendChild(make("p", "text")).appendChild(new Text());
      this.plain.appendData(content);
    }
    this.text += content ?? "";
  }

  think(text) {
    if (!this.thought) {
      const details = make("details", "thought");
      details.append(make("summary", "", "Reasoning"));
      this.thought = details.appendChild(make("p", "text")).appendChild(new Text());
      this.body.prepend(details);
    }
    this.thought.appendData(text);
  }

  fail(error) {
    this.error = error;
    this.body.append(errorBox(error));
  }

  end(ending) {
    this.element.removeAttribute("aria-busy");
    this.tokens?.end(this.text.length);
    if (!this.text && !this.error && !this.thought) {
      this.body.append(make("p", "soft", ending === "stopped" ? "(stopped)" : "(empty answer)"));
    }
    this.figures.textContent = figures(this.clock, ending).join(" · ");
  }
}

/** An error of the API in its own words, with everything it said on demand. */
export function errorBox(error) {
  const box = make("div", "error");
  box.setAttribute("role", "alert");
  if (!(error instanceof ApiError)) {
    box.append(make("p", "", `${error.name}: ${error.message}`));
    return box;
  }
  if (error.title) box.append(make("p", "title", error.title));
  box.append(make("p", "text", error.message));
  if (error.requestId) box.append(make("p", "soft small", `request ${error.requestId}`));
  const details = make("details");
  details.append(make("summary", "", "As it came"), make("pre", "", error.body));
  box.append(details);
  return box;
}

/** How long it took and how fast it went, in words. */
function figures({ sent, first, last, chunks: counted, tokens }, ending) {
  if (first === null) return ending ? [ending] : [];
  const count = tokens || counted;
  const parts = [`TTFT ${seconds(first - sent)}`];
  if (count > 1 && last > first) {
    parts.push(`${(((count - 1) * 1000) / (last - first)).toFixed(1)} tokens/s`);
  }
  // Without the server's count (a stopped answer has none) chunks are counted: about one a token.
  parts.push(`${tokens ? "" : "about "}${count} token${count === 1 ? "" : "s"}`);
  parts.push(`${seconds(last - sent)} in all`);
  if (ending === "length") parts.push("cut at the token limit");
  else if (ending) parts.push(ending);
  return parts;
}

function seconds(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

function make(name, className = "", text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}
