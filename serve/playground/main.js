// The page put together: what is served, who is asked, and what the buttons do.

import { ask } from "/playground/api.js";
import { Charts } from "/playground/charts.js";
import { Answer, Turn, errorBox, history } from "/playground/chat.js";
import { asCurl, asPython } from "/playground/code.js";
import * as settings from "/playground/settings.js";
import { watchTokens } from "/playground/tokens.js";

const SECONDS_BETWEEN_LOOKS = 3;
const LOOKS_BETWEEN_LISTS = 10;
const element = (id) => document.getElementById(id);
const [log, prompt] = [element("log"), element("prompt")];

let turns = [];
let running = null; // the AbortController of the answers under way
let charts = null;
let phase = null;
let looks = 0;
let keyAskedFor = false;
let listed = ""; // the models as they were listed last

// ── what the server is and serves ──

async function watchServer() {
  if (document.visibilityState === "visible") {
    const before = phase;
    phase = await askPhase();
    element("server").dataset.phase = phase;
    element("server-text").textContent = phase;
    looks += 1;
    if (phase === "ready" && before !== "ready") await whenReady();
    // Adapters come and go while the page is open.
    else if (phase === "ready" && looks % LOOKS_BETWEEN_LISTS === 0) await loadModels();
  }
  setTimeout(watchServer, SECONDS_BETWEEN_LOOKS * 1000);
}

async function askPhase() {
  try {
    return (await (await fetch("/ready", { cache: "no-store" })).json()).status;
  } catch {
    return "not reachable";
  }
}

async function whenReady() {
  charts ??= new Charts(element("charts"), element("charts-note"), settings.key);
  charts.resume();
  await loadModels();
}

async function loadModels() {
  try {
    const text = await (await ask("/v1/models", { key: settings.key() })).text();
    if (text === listed) return;
    listed = text;
    showModels(JSON.parse(text).data);
    notice();
  } catch (error) {
    listed = "";
    notice(error);
    // Once: the list is asked for again and again, and the person may be writing.
    if (error.status === 401 && !keyAskedFor) openPanel(element("key"));
    keyAskedFor ||= error.status === 401;
  }
}

/** Whether a model is an adapter. "base" is another name of the base, which is its parent. */
const isAdapter = (model) => Boolean(model.parent) && model.id !== "base";

function showModels(models) {
  for (const [select, preferred] of [
    [element("model"), (one) => !isAdapter(one)],
    [element("second"), isAdapter],
  ]) {
    const before = select.value;
    select.replaceChildren(...groups(models));
    const chosen = models.find((one) => one.id === before) ?? models.find(preferred) ?? models[0];
    select.value = chosen?.id ?? "";
  }
  const compare = element("compare");
  compare.disabled = models.length < 2;
  compare.parentElement.title = compare.disabled ? "Only one model is served" : "";
  if (compare.disabled) compare.checked = false;
  showSecond();
  element("send").disabled = models.length === 0;
}

function groups(models) {
  const kinds = [
    ["Models", models.filter((one) => !isAdapter(one))],
    ["Adapters", models.filter(isAdapter)],
  ];
  return kinds.filter(([, some]) => some.length).map(([label, some]) => {
    const group = Object.assign(document.createElement("optgroup"), { label });
    group.append(...some.map((one) => new Option(one.id, one.id)));
    return group;
  });
}

function showSecond() {
  element("second-label").hidden = !element("compare").checked;
}

// ── asking ──

/** The bodies of the requests for a question: one for each model that is to answer it. */
function requests(before, question) {
  const models = [element("model").value];
  if (element("compare").checked) models.push(element("second").value);
  return models.map((model, side) => ({
    model,
    messages: [
      ...settings.systemMessages(),
      ...history(before, side),
      { role: "user", content: question },
    ],
    ...settings.sampling(),
    stream: true,
    stream_options: { include_usage: true },
  }));
}

async function answer(turn, before) {
  notice();
  setRunning(new AbortController());
  turn.answer(requests(before, turn.question).map((request) => new Answer(request)));
  again(null);
  follow();
  const { signal } = running;
  try {
    await Promise.all(turn.answers.map((one) => one.run(settings.key(), signal)));
  } finally {
    setRunning(null);
    again(turn);
    announce(turn.answers);
    if (turn.answers.some((one) => one.error?.code === "model_not_found")) loadModels();
  }
}

function send() {
  const question = prompt.value;
  if (!question.trim() || running || element("send").disabled || refuseInvalid()) return;
  prompt.value = "";
  fit();
  const turn = new Turn(question);
  const before = [...turns];
  turns.push(turn);
  element("empty").hidden = true;
  log.append(turn.element);
  answer(turn, before);
}

/** Whether a field of the panel holds what it must not; the browser says what is allowed. */
function refuseInvalid() {
  const invalid = settings.invalidField();
  if (!invalid) return false;
  openPanel(invalid);
  invalid.reportValidity();
  return true;
}

function setRunning(controller) {
  running = controller;
  const had = document.activeElement;
  element("send").hidden = running !== null;
  element("stop").hidden = running === null;
  // A button that vanishes takes the focus with it.
  if (had === element("stop") || had === element("send")) prompt.focus();
}

/** Offer to ask the last question again. */
function again(turn) {
  document.querySelector(".again")?.remove();
  if (!turn) return;
  const failed = turn.answers.some((one) => one.error);
  const button = Object.assign(document.createElement("button"), {
    type: "button",
    className: "again",
    textContent: failed ? "Try again" : "Answer again",
  });
  button.addEventListener("click", () => {
    if (refuseInvalid()) return;
    answer(turn, turns.slice(0, -1));
    prompt.focus();
  });
  turn.element.append(button);
}

function announce(answers) {
  const failed = answers.some((one) => one.error);
  element("announce").textContent = failed ? "The answer failed." : "The answer is complete.";
}

/** Keep the end of the conversation in sight while it grows, unless the reader went up. */
function follow() {
  log.scrollTop = log.scrollHeight;
  let last = log.scrollTop;
  const step = () => {
    if (log.scrollTop < last - 4) return;
    log.scrollTop = log.scrollHeight;
    last = log.scrollTop;
    if (running) requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

function newChat() {
  running?.abort();
  turns = [];
  log.querySelectorAll(".turn").forEach((one) => one.remove());
  element("empty").hidden = false;
  prompt.focus();
  if (phase === "ready") loadModels();
}

// ── the rest of the page ──

function notice(error = null) {
  element("notice").hidden = error === null;
  element("notice").replaceChildren(...(error === null ? [] : [errorBox(error)]));
}

function openPanel(field) {
  showPanel(true);
  field.closest("details")?.setAttribute("open", "");
  field.focus();
}

function showPanel(open) {
  document.body.classList.toggle("panel-open", open);
  element("show-panel").setAttribute("aria-expanded", String(open));
}

function fit() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight + 2}px`;
}

/** The request that would be sent now; with nothing written, the one sent last. */
function shownRequest() {
  const last = turns.at(-1);
  if (!prompt.value.trim() && last?.answers.length) return last.answers[0].request;
  return requests(turns, prompt.value.trim() ? prompt.value : "Hello")[0];
}

function showCode() {
  const { stream_options: _, ...request } = shownRequest();
  element("code-curl").textContent = asCurl(location.origin, request);
  element("code-python").textContent = asPython(location.origin, request);
  element("copied").textContent = "";
  element("code").showModal();
}

async function copy(id) {
  const source = element(id);
  try {
    await navigator.clipboard.writeText(source.textContent);
    element("copied").textContent = "Copied.";
  } catch {
    // Without https browsers give no clipboard, except on this machine itself.
    getSelection().selectAllChildren(source);
    element("copied").textContent = "Selected: press Ctrl+C to copy.";
  }
}

function listen() {
  const touch = matchMedia("(pointer: coarse)").matches;
  if (touch) element("hint").textContent = "";
  element("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  prompt.addEventListener("keydown", (event) => {
    const plain = event.key === "Enter" && !event.shiftKey && !event.isComposing && !touch;
    if (!plain) return;
    event.preventDefault();
    send();
  });
  prompt.addEventListener("input", fit);
  element("stop").addEventListener("click", () => running?.abort());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !element("code").open) running?.abort();
  });
  element("compare").addEventListener("change", showSecond);
  element("new-chat").addEventListener("click", newChat);
  element("show-code").addEventListener("click", showCode);
  element("show-panel").addEventListener("click", () =>
    showPanel(!document.body.classList.contains("panel-open")),
  );
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(button.dataset.copy));
  }
}

settings.drawNumbers();
settings.keepTheme();
settings.keepKey(() => {
  charts?.resume();
  if (phase === "ready") loadModels();
});
watchTokens(log, element("alternatives"));
listen();
// Beside the conversation where there is room; where it would lie over it, only when asked for.
const wide = matchMedia("(min-width: 60rem)");
wide.addEventListener("change", () => showPanel(wide.matches));
showPanel(wide.matches);
prompt.focus();
watchServer();
