// What a request asks for beside its messages, the key, and the colours of the page.

const NUMBERS = [
  // name, label, step, minimum, maximum, whether OpenAI has it too
  ["temperature", "Temperature", 0.1, 0, 2, true],
  ["top_p", "Top p", 0.05, 0, 1, true],
  ["max_tokens", "Max tokens", 1, 1, null, true],
  ["seed", "Seed", 1, null, null, true],
  ["presence_penalty", "Presence penalty", 0.1, -2, 2, true],
  ["frequency_penalty", "Frequency penalty", 0.1, -2, 2, true],
  ["top_k", "Top k", 1, -1, null, false],
  ["min_p", "Min p", 0.01, 0, 1, false],
  ["repetition_penalty", "Repetition penalty", 0.05, 0, 10, false],
];

/** Parameters that vLLM adds to OpenAI's; the openai client sends them as extra_body. */
export const BEYOND_OPENAI = NUMBERS.filter(([, , , , , openai]) => !openai).map(([name]) => name);

const ALTERNATIVES = 5;
const KEY = "llmkit.key";
const THEME = "llmkit.theme";
const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };

const element = (id) => document.getElementById(id);

const SHOWN = 4; // the others are under "More"

/** Draw the number fields. */
export function drawNumbers() {
  for (const [index, [name, label, step, min, max]] of NUMBERS.entries()) {
    const input = document.createElement("input");
    Object.assign(input, { type: "number", id: name, step: "any", placeholder: "default" });
    input.inputMode = Number.isInteger(step) ? "numeric" : "decimal";
    if (Number.isInteger(step)) input.step = step;
    if (min !== null) input.min = min;
    if (max !== null) input.max = max;
    const field = document.createElement("label");
    field.className = "field";
    field.append(label, input);
    element(index < SHOWN ? "numbers" : "more-numbers").append(field);
  }
}

/** The fields of a request that the panel decides; a field left empty is not in it. */
export function sampling() {
  const found = {};
  for (const [name] of NUMBERS) {
    const text = element(name).value;
    if (text !== "") found[name] = Number(text);
  }
  const stop = element("stops").value.split("\n").filter((line) => line !== "");
  if (stop.length) found.stop = stop;
  if (element("logprobs").checked) Object.assign(found, { logprobs: true, top_logprobs: ALTERNATIVES });
  return found;
}

/** The first field whose value the browser finds out of range or no number, if there is one. */
export function invalidField() {
  return NUMBERS.map(([name]) => element(name)).find((input) => !input.checkValidity()) ?? null;
}

/** The system prompt as messages: one, or none. */
export function systemMessages() {
  const content = element("system").value;
  return content.trim() ? [{ role: "system", content }] : [];
}

/** The key that requests carry; empty for none. */
export const key = () => element("key").value.trim();

/** Fill the key field from this tab's storage, and keep what is typed there. */
export function keepKey(changed) {
  const field = element("key");
  field.value = sessionStorage.getItem(KEY) ?? "";
  field.addEventListener("change", () => {
    if (key()) sessionStorage.setItem(KEY, key());
    else sessionStorage.removeItem(KEY);
    changed();
  });
}

/** Light, dark, or as the system says; kept for the next visit. */
export function keepTheme() {
  const button = element("theme");
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.textContent = THEMES[theme];
    button.setAttribute("aria-label", `${THEMES[theme]} colours`);
  };
  let theme = localStorage.getItem(THEME);
  if (!(theme in THEMES)) theme = "auto";
  show(theme);
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    theme = names[(names.indexOf(theme) + 1) % names.length];
    localStorage.setItem(THEME, theme);
    show(theme);
  });
}
