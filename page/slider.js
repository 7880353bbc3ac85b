// The slider between before and after can be moved with the arrow keys, too: Gradio's follows the mouse only.
const find = () => document.querySelector("#result [data-testid=slider]");

function label() {
  const slider = find();
  if (!slider || slider.tabIndex === 0) return;
  slider.tabIndex = 0;
  slider.setAttribute("role", "slider");
  slider.setAttribute("aria-label", "before and after");
  slider.setAttribute("aria-valuenow", "50");
}

function move(event) {
  const slider = find(), steps = { ArrowLeft: -1, ArrowRight: 1 };
  if (event.target !== slider || !(event.key in steps)) return;
  event.preventDefault();
  const box = slider.getBoundingClientRect(), image = slider.parentElement.getBoundingClientRect();
  const at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, view: window, bubbles: true };
  const to = at.clientX + steps[event.key] * image.width / 20;
  slider.dispatchEvent(new MouseEvent("mousedown", at));
  window.dispatchEvent(new MouseEvent("mousemove", { ...at, clientX: to }));
  window.dispatchEvent(new MouseEvent("mouseup", { ...at, clientX: to }));
  const share = Math.round(100 * (to - image.x) / image.width);
  slider.setAttribute("aria-valuenow", Math.max(0, Math.min(100, share)));
}

new MutationObserver(label).observe(document.documentElement, { childList: true, subtree: true });
document.addEventListener("keydown", move, true);
