"use strict";
(() => {
  const [figures, tables] = ["figures", "tables"].map((id) => JSON.parse(document.getElementById(id).textContent));
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const print = window.matchMedia("print");
  // None uploads, none selects: nothing here uses a selection.
  const BUTTONS = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];
  const drawn = new Map(); // names, and the widths with which they were drawn
  const boxes = new ResizeObserver((seen) => {
    for (const { target } of seen) if (target.clientWidth && target.clientWidth !== drawn.get(target.id)) draw(target.id);
  });
  const touch = window.matchMedia("(pointer: coarse)").matches;

  // Everything that is neither data nor an arm's colour comes from the template, so a theme is one template.
  function themed(layout) {
    const style = getComputedStyle(root);
    const [ink, rule, paper] = ["--ink", "--rule", "--paper"].map((name) => style.getPropertyValue(name).trim());
    const template = structuredClone(layout.template);
    const own = template.layout;
    own.font.color = ink;
    own.paper_bgcolor = paper;
    own.hoverlabel.bgcolor = paper;
    own.hoverlabel.font.color = ink;
    for (const axis of [own.xaxis, own.yaxis]) axis.gridcolor = axis.linecolor = axis.tickcolor = rule;
    // Scrolling by touch must not zoom a plot.
    return { ...layout, template, ...(touch ? { dragmode: false } : {}) };
  }

  function draw(name) {
    const box = document.getElementById(name);
    if (box.closest("details:not([open])")) return; // without a size there is nothing to draw into
    const { data, layout } = figures[name];
    // A width that is given once stays: only a size that is always given follows the box to paper and back.
    const options = { displaylogo: false, displayModeBar: touch ? false : "hover", modeBarButtons: BUTTONS };
    Plotly.react(box, data, { ...themed(layout), width: box.clientWidth }, options);
    if (!drawn.has(name)) box.on("plotly_afterplot", () => withoutTabStops(box));
    drawn.set(name, box.clientWidth);
    withoutTabStops(box);
    boxes.observe(box);
  }

  // An image has no parts that a keyboard reaches; the buttons only repeat what the pointer does.
  function withoutTabStops(box) {
    for (const part of box.querySelectorAll("a, button, [tabindex]")) part.setAttribute("tabindex", "-1");
  }

  // A table is a tab stop, and has a hint, only while it is wider than its box.
  function markTables() {
    for (const box of document.querySelectorAll(".scroll")) {
      const wide = box.scrollWidth > box.clientWidth + 1;
      box.classList.toggle("wide-table", wide);
      if (wide) box.setAttribute("tabindex", "0");
      else box.removeAttribute("tabindex");
    }
  }

  function drawAll(within = document) {
    for (const box of within.querySelectorAll(".plot")) draw(box.id);
  }

  function choose(button) {
    const { figure, view } = button.dataset;
    const { title, x } = figures[figure].views[view];
    figures[figure].data.forEach((trace, place) => (trace.x = x[place]));
    figures[figure].layout.xaxis.title.text = title;
    for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
    draw(figure);
  }

  // For printing, everything is unfolded and uses the light theme.
  function toPaper(on) {
    if (on === root.classList.contains("paper")) return;
    root.classList.toggle("paper", on);
    for (const fold of document.querySelectorAll(on ? "details:not([open])" : "details[data-folded]")) {
      fold.toggleAttribute("data-folded", on);
      fold.open = on;
    }
    warningsAfterFigures(on);
    drawAll();
    markTables();
  }

  // On paper the first page starts with the answer and its figures.
  function warningsAfterFigures(on) {
    const warnings = document.getElementById("warnings");
    const figures = document.getElementById("question-better");
    const contents = document.querySelector("nav");
    if (warnings && figures && contents) on ? figures.after(warnings) : contents.before(warnings);
  }

  async function unpack(link) {
    const bytes = Uint8Array.from(atob(tables[link.dataset.csv]), (letter) => letter.charCodeAt(0));
    const text = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const blob = new Blob([await new Response(text).arrayBuffer()], { type: "text/csv;charset=utf-8" });
    link.href = URL.createObjectURL(blob);
  }

  // A text that is copied is selected too, for browsers that refuse the clipboard.
  async function copy(button) {
    const text = button.dataset.copy;
    const shown = button.parentElement.querySelector("pre") ?? button;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(shown);
      button.textContent = shown === button ? "Not allowed" : "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  }

  // A link to a folded part unfolds it.
  function unfold() {
    const part = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (part instanceof HTMLDetailsElement) part.open = true;
  }

  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", () => copy(button));
  }
  window.addEventListener("hashchange", unfold);
  unfold();
  for (const link of document.querySelectorAll("a[data-csv]")) unpack(link);
  for (const button of document.querySelectorAll("button[data-view]")) {
    button.addEventListener("click", () => choose(button));
  }
  function unfolded(part) {
    drawAll(part);
    markTables();
  }
  document.addEventListener("toggle", (event) => event.target.open && unfolded(event.target), true);
  window.addEventListener("resize", markTables);
  dark.addEventListener("change", () => drawAll());
  print.addEventListener("change", (event) => toPaper(event.matches));
  window.addEventListener("beforeprint", () => toPaper(true));
  window.addEventListener("afterprint", () => toPaper(false));
  drawAll();
  markTables();
})();
