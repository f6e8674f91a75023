"use strict";
const COLOURS = ["#cfe3ff", "#ffe0b8", "#cdeccd", "#f2d0ec", "#fff0a8", "#d9d4f7"];
const byId = (id) => document.getElementById(id);
const make = (tag, content, className) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...[].concat(content ?? []));
  return element;
};
let models = [];
let model = null;

const call = async (path, options = {}) => {
  const key = sessionStorage.getItem("key");
  const headers = { ...options.headers, ...(key ? { "X-API-Key": key } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server cannot be reached.");
  }
  if (answer.status === 401) byId("key-form").hidden = false;
  const body = await answer.json().catch(() => ({ detail: `status ${answer.status}` }));
  if (!answer.ok) throw new Error(body.detail);
  return body;
};

const show = (text, isError = false) => {
  byId("status").textContent = text;
  byId("status").className = isError ? "error" : "";
};

const bars = (top) =>
  top.map(({ label, probability }) => {
    const meter = make("meter");
    meter.value = probability;
    meter.setAttribute("aria-label", label);
    return make("div", [make("span", label), meter, make("span", `${(100 * probability).toFixed(1)} %`)], "bar");
  });

const marked = (record) => {
  const text = Array.from(record.text); // offsets count code points
  const types = [...new Set(model.labels.map((label) => label.slice(label.indexOf("-") + 1)))];
  const parts = [];
  let end = 0;
  for (const entity of record.entities) {
    const mark = make("mark", [text.slice(entity.start, entity.end).join(""), make("small", entity.type)]);
    mark.style.background = COLOURS[types.indexOf(entity.type) % COLOURS.length] ?? COLOURS[0];
    if (entity.score !== null) mark.title = `${(100 * entity.score).toFixed(1)} %`;
    parts.push(text.slice(end, entity.start).join(""), mark);
    end = entity.end;
  }
  parts.push(text.slice(end).join(""));
  const block = make("div", parts, "entities");
  block.dir = "auto";
  const none = make("p", "No entity found.");
  return record.entities.length ? [block] : [block, none];
};

const result = (record, picture) => {
  let content;
  if (record.error) content = [make("p", `${record.source}: ${record.error}`, "error")];
  else if (record.top && record.label) content = [make("p", record.source), ...bars(record.top)];
  else if (record.entities) content = marked(record);
  else content = [make("pre", JSON.stringify(record.output, null, 1))];
  byId("results").append(make("div", [...(picture && !record.error ? [picture] : []), make("div", content)], "result"));
};

const predict = async (path, options, pictures = []) => {
  byId("results").replaceChildren();
  show("Predicting …");
  try {
    const began = performance.now();
    const { predictions } = await call(path, options);
    show(`${predictions.length === 1 ? "1 prediction" : `${predictions.length} predictions`} in ${Math.round(performance.now() - began)} ms`);
    predictions.forEach((record, number) => result(record, pictures[number]));
  } catch (error) {
    show(error.message, true);
  }
};

const sendFiles = (files) => {
  if (!files.length) return;
  const form = new FormData();
  const pictures = [...files].map((file) => {
    form.append("files", file);
    const picture = make("img");
    picture.alt = file.name;
    picture.src = URL.createObjectURL(file);
    picture.onerror = () => picture.remove();
    picture.onload = () => URL.revokeObjectURL(picture.src);
    return picture;
  });
  predict(`models/${encodeURIComponent(model.name)}/files`, { method: "POST", body: form }, pictures);
};

const sendText = () => {
  let input = byId("text").value;
  if (model.kind === "tensors") {
    try {
      input = JSON.parse(input);
    } catch (error) {
      return show(`Not JSON: ${error.message}`, true);
    }
  }
  return predict(`models/${encodeURIComponent(model.name)}/predict`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ inputs: [input] }),
  });
};

const choose = (name) => {
  model = models.find((one) => one.name === name);
  const scores = Object.entries(model.scores ?? {}).map(([key, value]) => `${key} ${Number(value).toPrecision(3)}`);
  byId("about").textContent = [`run ${model.run}`, ...scores].join(" · ");
  byId("drop").hidden = model.kind !== "images";
  byId("text-form").hidden = model.kind === "images";
  byId("text-label").textContent = model.kind === "text" ? "Type a sentence" : `One row as JSON: ${model.inputs.map((one) => `${one.name} ${JSON.stringify(one.shape.slice(1))}`).join(", ")}`;
  byId("results").replaceChildren();
  show("");
};

const start = async () => {
  try {
    models = await call("models");
  } catch (error) {
    return show(error.message, true);
  }
  byId("key-form").hidden = true;
  byId("model").replaceChildren(...models.map((one) => make("option", one.name)));
  byId("choose").hidden = models.length < 2;
  choose(models[0].name);
};

byId("model").onchange = (event) => choose(event.target.value);
byId("file").onchange = (event) => sendFiles(event.target.files);
byId("text-form").onsubmit = (event) => { event.preventDefault(); sendText(); };
byId("text").onkeydown = (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) sendText(); };
byId("key-form").onsubmit = (event) => { event.preventDefault(); sessionStorage.setItem("key", byId("key").value); start(); };
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && model && model.kind === "images") sendFiles(event.dataTransfer.files);
  });
}
start();
