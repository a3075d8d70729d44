"use strict";
(() => {
  const [figures, tables] = ["figures", "tables"].map((id) => JSON.parse(document.getElementById(id).textContent));
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const print = window.matchMedia("print");
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
    // For printing, plots are drawn at once with the width of the paper; on screen a plot follows its box.
    const width = root.classList.contains("paper") ? { width: box.clientWidth } : {};
    const options = { responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover" };
    Plotly.react(box, data, { ...themed(layout), ...width }, options);
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
    drawAll();
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
  document.addEventListener("toggle", (event) => event.target.open && drawAll(event.target), true);
  dark.addEventListener("change", () => drawAll());
  print.addEventListener("change", (event) => toPaper(event.matches));
  window.addEventListener("beforeprint", () => toPaper(true));
  window.addEventListener("afterprint", () => toPaper(false));
  drawAll();
})();
