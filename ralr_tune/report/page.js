"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)").matches;

  // Everything that is neither data nor an arm's colour comes from the template, so a theme is one template.
  function themed(layout) {
    const style = getComputedStyle(document.documentElement);
    const [ink, rule, paper] = ["--ink", "--rule", "--paper"].map((name) => style.getPropertyValue(name).trim());
    const template = structuredClone(layout.template);
    const own = template.layout;
    own.font.color = ink;
    own.paper_bgcolor = paper;
    own.hoverlabel.bgcolor = paper;
    own.hoverlabel.font.color = ink;
    for (const axis of [own.xaxis, own.yaxis]) axis.gridcolor = axis.linecolor = axis.tickcolor = rule;
    // A finger that scrolls the page must not zoom a plot.
    return { ...layout, template, ...(touch ? { dragmode: false } : {}) };
  }

  function draw() {
    for (const [name, figure] of Object.entries(figures)) {
      const options = { responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover" };
      Plotly.react(document.getElementById(name), figure.data, themed(figure.layout), options);
    }
  }

  draw();
  dark.addEventListener("change", draw);
})();
