// The models to choose from, each with a picture of what it does. `props.setup`: {models: [{name, task, picture}], any}.
// `props.value` becomes the chosen one's name, which is what Gradio's change event sends.

const list = element.querySelector(".models");

function add({ name, task, picture }) {
  const label = document.createElement("label");
  const radio = Object.assign(document.createElement("input"), { type: "radio", name: "model", value: name });
  const words = document.createElement("span");
  words.append(Object.assign(document.createElement("b"), { textContent: name }), task);
  label.append(radio, picture ? Object.assign(document.createElement("img"), { src: picture, alt: "" }) : "", words);
  radio.addEventListener("change", () => (props.value = name));
  list.append(label);
}

function addAny() {
  const label = Object.assign(document.createElement("label"), { className: "any", textContent: "or any on the Hub" });
  const text = Object.assign(document.createElement("input"), { type: "text", placeholder: "user/name" });
  text.addEventListener("change", () => text.value.trim() && (props.value = text.value.trim()));
  label.append(text);
  list.append(label);
}

function begin() {
  list.querySelectorAll("label").forEach((each) => each.remove());
  props.setup.models.forEach(add);
  if (props.setup.any) addAny();
  check();
}

function check() {
  list.querySelectorAll("input[type=radio]").forEach((each) => (each.checked = each.value === props.value));
  document.body.dataset.model = props.value; // for the link that page.js copies
}

watch("setup", begin);
watch("value", check);
begin();
