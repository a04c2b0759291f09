() => {
  // What Gradio leaves out for those who do not see the page or have no mouse. Its before/after slider answers to the
  // mouse only: give its handle a role, a name and the arrow keys.
  const STEP = 0.05;
  const drag = (handle, from, to) => {
    const y = handle.getBoundingClientRect().top + 20;
    const send = (target, type, x) =>
      target.dispatchEvent(new MouseEvent(type, { bubbles: true, cancelable: true, view: window, clientX: x, clientY: y }));
    send(handle, "mousedown", from);
    send(window, "mousemove", to);
    send(window, "mouseup", to);
  };
  const follow = (handle) => {
    const box = handle.parentElement.getBoundingClientRect();
    const at = handle.getBoundingClientRect();
    return { middle: at.left + at.width / 2, left: box.left, width: box.width };
  };
  const tell = (handle) => {
    const { middle, left, width } = follow(handle);
    handle.setAttribute("aria-valuenow", Math.round((100 * (middle - left)) / Math.max(1, width)));
  };
  const equip = (handle) => {
    handle.tabIndex = 0;
    handle.setAttribute("role", "slider");
    handle.setAttribute("aria-label", "Border between before and after");
    handle.setAttribute("aria-valuemin", 0);
    handle.setAttribute("aria-valuemax", 100);
    tell(handle);
    handle.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -99, End: 99 }[event.key];
      if (!steps) return;
      event.preventDefault();
      const { middle, left, width } = follow(handle);
      drag(handle, middle, Math.min(left + width, Math.max(left, middle + steps * STEP * width)));
      requestAnimationFrame(() => tell(handle));
    });
  };
  // A link to a drawing opens the tab that it is drawn in, with its model.
  let linked = new URLSearchParams(location.hash.slice(1));
  const openDrawing = () => {
    const tab = [...document.querySelectorAll("[role=tab]")].find((each) => each.textContent.trim() === "Draw");
    const radios = [...document.querySelectorAll("#model input[type=radio]")];
    if (!tab || !radios.length) return;
    radios.find((each) => each.value === linked.get("model") && !each.checked)?.click();
    linked = null;
    tab.click();
  };
  new MutationObserver(() => {
    if (linked?.has("drawing")) openDrawing();
    document.querySelectorAll('[data-testid="slider"]:not([tabindex])').forEach(equip);
    document.querySelectorAll("div[aria-label]:not([role])").forEach((each) => each.setAttribute("role", "img"));
    document.querySelectorAll("button.upload-container").forEach((each) => {
      if (each.innerText.trim()) each.removeAttribute("aria-label"); // it says something else than the button
      else each.ariaLabel ||= "Choose more files";
    });
    document.querySelectorAll("button:has(button):not([role])").forEach((each) => {
      each.setAttribute("role", "group"); // a button inside of a button cannot be reached
      each.removeAttribute("aria-label");
      each.tabIndex = -1;
    });
    document.querySelectorAll("pre:not([tabindex])").forEach((each) => (each.tabIndex = 0));  // they scroll
  }).observe(document.body, { childList: true, subtree: true });

  // Gradio answers a file that is dropped, and is no picture by its name, with an alarm of its own. As a PNG it goes the
  // way of all pictures, and what is wrong with it is said in the place of a result.
  const isPicture = (file) => file.type.startsWith("image/");
  document.addEventListener("drop", (event) => {
    const files = [...(event.dataTransfer?.files ?? [])];
    if (files.every(isPicture)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const dataTransfer = new DataTransfer();
    for (const file of files) {
      dataTransfer.items.add(isPicture(file) ? file : new File([file], file.name, { type: "image/png" }));
    }
    event.target.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer }));
  }, true);
  for (const type of ["error", "load"]) {  // no picture is better than the browser's sign of a broken one
    document.addEventListener(type, ({ target }) => target.tagName === "IMG" && (target.dataset.is = type), true);
  }

  // The small buttons. What they copy is what is seen: an example is part of the link until another picture takes its place.
  const PAIRS = { "translate-copy": "#translate-result img", "draw-copy": "#board canvas, #draw-result img" };
  let example = null; // its number, while it is what is translated
  new MutationObserver(() => {
    for (const [id, selector] of Object.entries(PAIRS)) {
      const button = document.getElementById(id);
      if (button) button.disabled = document.querySelectorAll(selector).length < 2;
    }
  }).observe(document.body, { childList: true, subtree: true });
  const answer = (button, words) => {
    const before = button.dataset.words || button.textContent;
    button.dataset.words = before;
    button.textContent = words;
    setTimeout(() => (button.textContent = before), 2000);
  };
  const sideBySide = async (selector) => {
    const found = [...document.querySelectorAll(selector)];
    const both = [found[0], found[found.length - 1]];
    if (found.length < 2) return null;
    await Promise.all(both.map((each) => each.decode?.()));
    const { naturalWidth: width, naturalHeight: height } = both[1];
    const sheet = Object.assign(document.createElement("canvas"), { width: 2 * width, height });
    const context = sheet.getContext("2d");
    context.imageSmoothingEnabled = false;
    both.forEach((each, index) => context.drawImage(each, index * width, 0, width, height));
    return sheet;
  };
  const copyPair = async (button) => {
    const sheet = await sideBySide(PAIRS[button.id]);
    const blob = new Promise((done) => sheet.toBlob(done, "image/png"));
    try {
      await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
      answer(button, "Copied");
    } catch {
      // browsers let pages write to the clipboard only over https or on this machine
      const link = Object.assign(document.createElement("a"), { download: "side_by_side.png" });
      link.href = URL.createObjectURL(await blob);
      link.click();
      answer(button, "Saved as a file");
    }
  };
  const copyLink = async (button) => {
    const query = new URLSearchParams({ model: document.body.dataset.model });
    if (example !== null) query.set("example", example);
    const link = `${location.origin}${location.pathname}?${query}`;
    try {
      await navigator.clipboard.writeText(link);
      answer(button, "Copied");
    } catch {
      prompt("The link:", link);
    }
  };
  const surprise = (button) => {
    const strip = document.querySelectorAll(`#${button.id.replace("surprise", "examples")} button`);
    const others = [...strip].filter((each, index) => String(index) !== button.dataset.last);
    const chosen = others[Math.floor(Math.random() * others.length)];
    if (!chosen) return answer(button, "No examples here");
    button.dataset.last = [...strip].indexOf(chosen);
    chosen.click();
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.id in PAIRS) copyPair(button);
    else if (button?.id === "translate-link") copyLink(button);
    else if (button?.id.endsWith("-surprise")) surprise(button);
    else if (button?.closest("#translate-examples")) {
      example = [...document.querySelectorAll("#translate-examples button")].indexOf(button);
    }
  }, true);
  for (const type of ["change", "drop", "paste"]) {
    document.addEventListener(type, (event) => {
      if (event.target.closest?.("#translate-input, #model")) example = null;
    }, true);
  }
}
