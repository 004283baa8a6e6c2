"use strict";
// Nothing here asks for anything: all there is stands in the page.
const data = JSON.parse(document.getElementById("data").textContent);
const shown = { reference: true, prediction: true, hidden: new Set() };
const colours = data.structures.map((s) => [1, 3, 5].map((i) => parseInt(s.colour.slice(i, i + 2), 16)));

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Plane -> the axes across and up the picture; both are drawn from their far end, as radiologists look.
const PLANES = { axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0] };

class Viewer {
  constructor(element, facts) {
    this.shape = facts.shape;
    this.stride = [1, facts.shape[0], facts.shape[0] * facts.shape[1]];
    this.views = [...element.querySelectorAll("canvas")].map((canvas) => {
      const [u, v, w] = PLANES[canvas.dataset.plane];
      const slider = element.querySelector(`input[data-plane="${canvas.dataset.plane}"]`);
      [canvas.width, canvas.height] = [this.shape[u], this.shape[v]];
      slider.max = this.shape[w] - 1;
      const view = { canvas, slider, u, v, w };
      slider.addEventListener("input", () => this.draw(view));
      canvas.addEventListener("wheel", (event) => {
        event.preventDefault();
        slider.value = Number(slider.value) + Math.sign(event.deltaY);
        this.draw(view);
      }, { passive: false });
      return view;
    });
  }

  async load(facts) {
    [this.image, this.reference, this.prediction] = await Promise.all(
      [facts.image, facts.reference, facts.prediction].map(unpacked));
    for (const view of this.views) view.slider.value = this.busiest(view.w);
    this.drawAll();
  }

  busiest(axis) {
    const counts = new Uint32Array(this.shape[axis]);
    for (let i = 0; i < this.reference.length; i++) {
      const r = this.reference[i];
      if (r > 0 && r < 255) counts[Math.floor(i / this.stride[axis]) % this.shape[axis]]++;
    }
    return counts.indexOf(counts.reduce((a, b) => Math.max(a, b), 0));
  }

  drawAll() { this.views.forEach((view) => this.draw(view)); }

  draw(view) {
    if (!this.image) return;
    const { u, v, w } = view, nu = this.shape[u], nv = this.shape[v];
    const base = Number(view.slider.value) * this.stride[w];
    const context = view.canvas.getContext("2d");
    const picture = context.createImageData(nu, nv), out = picture.data;
    const at = (i, j) => base + (nu - 1 - i) * this.stride[u] + (nv - 1 - j) * this.stride[v];
    const visible = (c) => c > 0 && c < 255 && !shown.hidden.has(c);
    for (let j = 0, o = 0; j < nv; j++) {
      for (let i = 0; i < nu; i++, o += 4) {
        const p = at(i, j);
        let rgb = [this.image[p], this.image[p], this.image[p]];
        const predicted = this.prediction[p], reference = this.reference[p];
        if (shown.prediction && visible(predicted)) {
          const c = colours[predicted - 1];
          rgb = rgb.map((g, k) => 0.5 * g + 0.5 * c[k]);
        }
        if (shown.reference && visible(reference)) {
          const edge = (i > 0 && this.reference[at(i - 1, j)] !== reference) ||
            (i + 1 < nu && this.reference[at(i + 1, j)] !== reference) ||
            (j > 0 && this.reference[at(i, j - 1)] !== reference) ||
            (j + 1 < nv && this.reference[at(i, j + 1)] !== reference);
          if (edge) rgb = colours[reference - 1].map((c) => 0.35 * 255 + 0.65 * c);
        }
        out[o] = rgb[0]; out[o + 1] = rgb[1]; out[o + 2] = rgb[2]; out[o + 3] = 255;
      }
    }
    context.putImageData(picture, 0, 0);
    view.slider.setAttribute("aria-valuetext", `slice ${Number(view.slider.value) + 1} of ${this.shape[w]}`);
  }
}

const viewers = [...document.querySelectorAll(".case")].map((element) => {
  const facts = data.cases[Number(element.dataset.case)];
  const viewer = new Viewer(element, facts);
  viewer.load(facts).then(() => { element.dataset.ready = "yes"; });
  return viewer;
});

function press(button, on) { button.setAttribute("aria-pressed", String(on)); }

document.querySelectorAll(".toggles button").forEach((button) => button.addEventListener("click", () => {
  const { layer, structure, all } = button.dataset;
  if (layer) { shown[layer] = !shown[layer]; press(button, shown[layer]); }
  if (structure) {
    const id = Number(structure), hide = !shown.hidden.has(id);
    if (hide) shown.hidden.add(id); else shown.hidden.delete(id);
    press(button, !hide);
  }
  if (all) {
    shown.hidden = new Set(all === "hide" ? data.structures.map((s) => s.id) : []);
    document.querySelectorAll(".toggles [data-structure]").forEach((other) => press(other, all === "show"));
  }
  viewers.forEach((viewer) => viewer.drawAll());
}));

document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const numbers = [...table.tBodies[0].rows].every((row) => key(row) === "" || !Number.isNaN(Number(key(row))));
    const order = (a, b) => (numbers ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b)));
    const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? order(b, a) : order(a, b)));
    table.tBodies[0].append(...rows);
  }));
});

// -- charts: a slider each, whose value is the point that is read --------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

function drawn(svg, tag, name) {
  const made = document.createElementNS(SVG, tag);
  made.setAttribute("class", name);
  svg.append(made);
  return made;
}

function place(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}

// Where the pointer is, in the chart's own units.
function unitsAt(svg, event) {
  const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

// `steps` gives the point that a key leads to from point `at` of `count`; `show` draws it and returns what to say.
function makeSlider(svg, count, steps, show) {
  const readout = document.createElement("div");
  readout.className = "readout";
  svg.after(readout);
  let at = -1;
  const read = (index) => {
    if (index === at) return;
    at = index;
    readout.replaceChildren(...show(at));
    place(svg, { "aria-valuenow": at + 1, "aria-valuetext": readout.textContent });
  };
  place(svg, { role: "slider", tabindex: 0, "aria-valuemin": 1, "aria-valuemax": count });
  svg.addEventListener("keydown", (event) => {
    const next = event.ctrlKey || event.altKey || event.metaKey ? undefined : steps(event.key, at);
    if (next === undefined) return;
    event.preventDefault();
    read(Math.min(count - 1, Math.max(0, next)));
  });
  return read;
}

function part(text, colour) {
  const made = document.createElement("span");
  if (colour) {
    const key = document.createElement("i");
    key.style.background = colour;
    made.append(key);
  }
  made.append(text);
  return made;
}

const nearest = (values, x) => values.reduce((a, b, i) => (Math.abs(b - x) < Math.abs(values[a] - x) ? i : a), 0);

document.querySelectorAll("svg[data-lines]").forEach((svg) => {
  const facts = JSON.parse(svg.dataset.lines);
  const steps = [...new Set(facts.lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
  const cursor = drawn(svg, "line", "cursor");
  const across = (x) => facts.left + (x - facts.x[0]) / (facts.x[1] - facts.x[0]) * (facts.right - facts.left);
  const tell = (line, x) => {
    const [at, value] = line.points[nearest(line.points.map((point) => point[0]), x)];
    return part(`${line.name} ${value}${at === x ? "" : ` (${facts.of} ${at})`} `, line.colour);
  };
  const read = makeSlider(svg, steps.length, (key, at) => ({
    ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, PageUp: at + 10, PageDown: at - 10,
    Home: 0, End: steps.length - 1,
  })[key], (at) => {
    const x = steps[at];
    place(cursor, { x1: across(x), x2: across(x), y1: facts.top, y2: facts.bottom });
    return [part(`${facts.of} ${x} `), ...facts.lines.map((line) => tell(line, x))];
  });
  read(steps.length - 1);
  svg.addEventListener("pointermove", (event) => {
    const share = (unitsAt(svg, event)[0] - facts.left) / (facts.right - facts.left);
    read(nearest(steps, facts.x[0] + share * (facts.x[1] - facts.x[0])));
  });
});

document.querySelectorAll("svg[data-boxes]").forEach((svg) => {
  const number = (circle, name) => Number(circle.getAttribute(name));
  const rows = [...svg.querySelectorAll("g[data-row]")].map((group) =>
    [...group.querySelectorAll("circle")].sort((a, b) => number(a, "cx") - number(b, "cx")));
  const points = rows.flat(), rowOf = new Map(rows.flatMap((row, i) => row.map((circle) => [circle, i])));
  const ring = drawn(svg, "circle", "read");
  // To the row above or below, to its point that lies nearest.
  const toRow = (at, by) => {
    const row = rows[Math.min(rows.length - 1, Math.max(0, rowOf.get(points[at]) + by))];
    return points.indexOf(row[nearest(row.map((circle) => number(circle, "cx")), number(points[at], "cx"))]);
  };
  const read = makeSlider(svg, points.length, (key, at) => ({
    ArrowRight: () => at + 1, ArrowLeft: () => at - 1, ArrowUp: () => toRow(at, -1), ArrowDown: () => toRow(at, 1),
    Home: () => 0, End: () => points.length - 1,
  })[key]?.(), (at) => {
    const circle = points[at];
    place(ring, { cx: number(circle, "cx"), cy: number(circle, "cy"), r: 5 });
    return [part(`${circle.parentElement.dataset.row}, ${circle.textContent}`, circle.getAttribute("fill"))];
  });
  read(0);
  svg.addEventListener("pointermove", (event) => {
    const [x, y] = unitsAt(svg, event);
    const far = points.map((circle) => Math.hypot(number(circle, "cx") - x, number(circle, "cy") - y));
    read(far.indexOf(Math.min(...far)));
  });
});
