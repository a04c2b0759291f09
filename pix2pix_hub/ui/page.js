() => {
  // Gradio's before/after slider answers to the mouse only: give its handle a role, a name and the arrow keys.
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
  new MutationObserver(() => {
    document.querySelectorAll('[data-testid="slider"]:not([tabindex])').forEach(equip);
  }).observe(document.body, { childList: true, subtree: true });
}
