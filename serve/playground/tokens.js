// An answer token by token: how probable each was, and what could have stood in its place.

/** Appends tokens to an element, coloured by probability. */
export class TokenText {
  /** @param {HTMLElement} element is given the tokens as children. */
  constructor(element) {
    this.element = element;
    this.decoder = new TextDecoder();
    this.length = 0;
    element.classList.add("tokens");
    element.setAttribute("role", "group");
    element.setAttribute("aria-label", "Answer by tokens; arrow keys go from one to the next");
    element.addEventListener("keydown", (event) => moveFocus(event, element));
  }

  /** @param {object} token an entry of a choice's logprobs.content. */
  add(token) {
    // A character may be spread over several tokens: its text stands at the one that ends it.
    const text = token.bytes
      ? this.decoder.decode(new Uint8Array(token.bytes), { stream: true })
      : token.token;
    const span = document.createElement("span");
    span.className = "token";
    span.tabIndex = this.element.childElementCount ? -1 : 0;
    span.textContent = text;
    if (text === "") span.classList.add("partial");
    const probability = Math.exp(token.logprob);
    span.style.setProperty("--doubt", (1 - probability).toFixed(3));
    span.setAttribute("aria-label", `${readable(token.token)}, ${percent(probability)}`);
    span.token = token;
    this.length += text.length;
    this.element.append(span);
  }

  /** Mark what came after the answer's text: the token that ended it. */
  end(textLength) {
    let after = this.length;
    for (const span of [...this.element.children].reverse()) {
      after -= span.textContent.length;
      if (after < textLength || span.textContent === "") break;
      span.classList.add("ending");
    }
  }
}

function moveFocus(event, element) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const at = [...element.children].indexOf(document.activeElement);
  const next = element.children[at + step];
  if (!step || at < 0 || !next) return;
  document.activeElement.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
  event.preventDefault();
}

/** Show the alternatives of the token that the pointer or the focus is on. */
export function watchTokens(root, tip) {
  const show = (event) => {
    const span = event.target.closest?.(".token");
    if (span) place(tip, span);
    else hide(tip);
  };
  root.addEventListener("pointerover", show);
  root.addEventListener("focusin", show);
  root.addEventListener("click", show);
  root.addEventListener("pointerleave", () => hide(tip));
  root.addEventListener("focusout", () => hide(tip));
  root.addEventListener("scroll", () => hide(tip), { passive: true });
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide(tip));
}

function hide(tip) {
  tip.hidden = true;
  document.querySelector(".token[aria-describedby]")?.removeAttribute("aria-describedby");
}

function place(tip, span) {
  hide(tip);
  const { token, logprob, top_logprobs: others = [] } = span.token;
  const all = others.some((other) => other.token === token)
    ? others
    : [...others, { token, logprob }];
  tip.replaceChildren(...all.map((other) => row(other, other.token === token)));
  tip.hidden = false;
  span.setAttribute("aria-describedby", tip.id);
  const at = span.getClientRects()[0] ?? span.getBoundingClientRect();
  const below = at.bottom + 6 + tip.offsetHeight < innerHeight;
  const left = Math.min(at.left, innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - 6 - tip.offsetHeight)}px`;
}

function row({ token, logprob }, chosen) {
  const line = document.createElement("div");
  line.className = chosen ? "row chosen" : "row";
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.style.setProperty("--part", Math.exp(logprob));
  const text = document.createElement("code");
  text.textContent = readable(token);
  const share = document.createElement("span");
  share.className = "share";
  share.textContent = percent(Math.exp(logprob));
  share.title = `log-probability ${logprob.toFixed(3)}`;
  line.append(bar, text, share);
  return line;
}

/** White space in a form that can be seen. */
function readable(text) {
  const shown = text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
  return shown || "(part of a character)";
}

function percent(probability) {
  if (probability > 0.9995) return "100%";
  if (probability < 0.0005) return "<0.1%";
  return `${(probability * 100).toFixed(1)}%`;
}
