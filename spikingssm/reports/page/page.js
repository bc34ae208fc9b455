"use strict";
// Pictures that can be zoomed and asked for values. Without this script they are still pictures.
const NS = "http://www.w3.org/2000/svg";
const digits = (value, step) => Number(value.toFixed(Math.min(20, Math.max(0, 1 - Math.floor(Math.log10(step))))));
const made = (parent, kind, values) => {
  const part = parent.appendChild(document.createElementNS(NS, kind));
  for (const [name, value] of Object.entries(values)) part.setAttribute(name, value);
  return part;
};
const scale = (value, [a, b], [c, d]) => c + ((value - a) / (b - a)) * (d - c);

function zoomable(figure) {
  const svg = figure.querySelector("svg"), series = JSON.parse(figure.dataset.series);
  const axes = JSON.parse(figure.dataset.axes).map((one) => {
    const group = svg.querySelector(`[data-part="${one.part}"]`), [l, t, r, b] = one.box;
    return { ...one, group, content: group.querySelector(".content"), marks: made(group, "g", { class: "marks" }),
      across: [l, r], down: [b, t], full: [one.limits.slice(0, 2), one.limits.slice(2)], x: one.limits.slice(0, 2), y: one.limits.slice(2) };
  });
  let start = null, frame = null;

  function show(x, y = new Map()) { // limits of x for all axes, and of y for some
    const whole = axes[0].full[0], wide = Math.min(x[1] - x[0], whole[1] - whole[0]);
    if (!(wide > (whole[1] - whole[0]) / 1e4)) return;
    const low = Math.min(Math.max(x[0], whole[0]), whole[1] - wide);
    for (const one of axes) {
      [one.x, one.y] = [[low, low + wide], y.get(one) ?? one.y];
      const [sx, sy] = [[one.full[0], one.x], [one.full[1], one.y]].map(([f, v]) => (f[1] - f[0]) / (v[1] - v[0]));
      const dx = one.across[0] - sx * scale(one.x[0], one.full[0], one.across);
      const dy = one.down[0] - sy * scale(one.y[0], one.full[1], one.down);
      one.content?.setAttribute("transform", `matrix(${sx} 0 0 ${sy} ${dx} ${dy})`);
      mark(one);
    }
  }
  function mark(one) { // numbers at the axes, in place of those of the whole picture
    const differ = ([a, b], [c, d]) => Math.abs(a - c) + Math.abs(b - d) > 1e-9 * Math.abs(d - c);
    const zoomed = differ(one.x, one.full[0]) || differ(one.y, one.full[1]);
    one.group.classList.toggle("zoomed", zoomed);
    one.marks.replaceChildren();
    for (const [view, many, side] of zoomed ? [[one.x, 8, "x"], [one.y, one.down[0] - one.down[1] > 40 ? 5 : 1, "y"]] : []) {
      if (side === "x" && one !== axes.at(-1)) continue;
      const raw = Math.abs(view[1] - view[0]) / many, power = 10 ** Math.floor(Math.log10(raw));
      const step = power * [1, 2, 5, 10].find((n) => n * power >= raw);
      for (let n = Math.ceil(Math.min(...view) / step); n * step <= Math.max(...view); n++) {
        const at = side === "x" ? { x: scale(n * step, view, one.across), y: one.down[0] + 14, "text-anchor": "middle" }
          : { x: one.across[0] - 5, y: scale(n * step, view, one.down) + 3, "text-anchor": "end" };
        made(one.marks, "text", at).textContent = digits(n * step, step);
      }
    }
  }
  const zoom = (factor, at = 0.5) => {
    const [a, b] = axes[0].x, middle = a + at * (b - a);
    show([middle - (middle - a) * factor, middle + (b - middle) * factor]);
  };
  const pan = (part) => { const [a, b] = axes[0].x; show([a + part * (b - a), b + part * (b - a)]); };
  const reset = () => show(axes[0].full[0], new Map(axes.map((one) => [one, one.full[1]])));
  const keys = { "+": () => zoom(0.7), "-": () => zoom(1 / 0.7), ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), 0: reset, Escape: reset };

  function place(event) { // the point of the picture, and the axes that it lies in
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return { x, y, one: axes.find(({ box: [l, t, r, b] }) => x >= l && x <= r && y >= t && y <= b) };
  }
  function tell({ x, y, one }) { // the nearest value of a curve, or the place
    let [near, text] = [Infinity, ""];
    for (const [part, name, xs, ys] of series) {
      if (svg.querySelector(`[data-part="${part}"]`)?.classList.contains("off")) continue;
      xs.forEach((value, i) => {
        const far = Math.hypot(scale(value, one.x, one.across) - x, scale(ys[i], one.y, one.down) - y);
        if (far < near) [near, text] = [far, `${name}, ${one.names[0]} ${value}: ${ys[i]}`];
      });
    }
    const [vx, vy] = [scale(x, one.across, one.x), scale(y, one.down, one.y)];
    const high = one.names[1] === "neuron" ? Math.round(vy) : digits(vy, Math.abs(one.y[1] - one.y[0]) / 100);
    figure.querySelector("output").textContent = text || `${one.names[0]} ${Math.round(vx)}, ${one.names[1]} ${high}`;
  }
  function move(event) {
    const now = place(event);
    if (!start) return now.one && tell(now);
    const { one } = start, [l, t, r, b] = one.box;
    start.end = [Math.min(r, Math.max(l, now.x)), Math.min(b, Math.max(t, now.y))];
    const [x, y] = start.end, sides = { x: Math.min(x, start.x), y: Math.min(y, start.y), width: Math.abs(x - start.x), height: Math.abs(y - start.y) };
    for (const [name, value] of Object.entries(sides)) frame.setAttribute(name, value);
  }
  function release() {
    const { one, x, y, end } = start ?? {};
    frame?.remove();
    start = frame = null;
    if (!end) return;
    const limits = (p, q, from, to) => ((q - p) * (from[1] - from[0]) > 0 ? [p, q] : [q, p]).map((at) => scale(at, from, to));
    const wide = Math.abs(end[0] - x) > 5, high = Math.abs(end[1] - y) > 12;
    if (wide || high) show(wide ? limits(x, end[0], one.across, one.x) : one.x, new Map(high ? [[one, limits(y, end[1], one.down, one.y)]] : []));
  }
  svg.addEventListener("pointerdown", (event) => {
    const now = place(event);
    if (event.button || !now.one) return;
    [start, frame] = [now, made(svg, "rect", { class: "frame" })];
    if (event.isTrusted) svg.setPointerCapture(event.pointerId);
  });
  for (const [name, todo] of [["pointermove", move], ["pointerup", release], ["pointercancel", release], ["dblclick", reset]]) svg.addEventListener(name, todo);
  svg.addEventListener("wheel", (event) => { // the page scrolls until the picture is clicked
    const { x, one } = place(event);
    if (!one || !(document.activeElement === svg || event.ctrlKey)) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 0.8 : 1.25, scale(x, one.across, [0, 1]));
  }, { passive: false });
  svg.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  svg.tabIndex = 0;
  for (const [text, title, todo] of [["+", "Zoom in", keys["+"]], ["−", "Zoom out", keys["-"]], ["Whole picture", "Whole picture", reset]]) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: text, title, onclick: todo });
    button.setAttribute("aria-label", title);
    figure.querySelector(".buttons").append(button);
  }
  figure.querySelector(".buttons").hidden = false;
}

document.querySelectorAll("figure[data-axes]").forEach(zoomable);
for (const box of document.querySelectorAll(".legend input")) { // a run is shown or not, in all pictures at once
  box.hidden = false;
  box.onchange = () => document.querySelectorAll(`[data-part^="curve-${box.value}-"]`).forEach((part) => part.classList.toggle("off", !box.checked));
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
