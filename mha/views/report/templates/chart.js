// Figures as SVG: line styles, scales, panels of lines, heatmaps, and the reading of values.
const FEW = 6 // lines in a panel, up to which bands and seeds are drawn for all of them
const MARKERS = ['circle', 'square', 'up', 'diamond', 'down']
const SWATCH = 30 // width of a line in the legend
const HALO = { stroke: 'var(--paper)', 'stroke-width': 3, 'paint-order': 'stroke' }

function mark(kind, x, y, size, attributes) {
  const s = size
  const shapes = {
    square: `M${x - s} ${y - s}h${2 * s}v${2 * s}h${-2 * s}Z`,
    up: `M${x} ${y - s}L${x + s} ${y + s}H${x - s}Z`,
    down: `M${x} ${y + s}L${x + s} ${y - s}H${x - s}Z`,
    diamond: `M${x} ${y - 1.3 * s}L${x + 1.3 * s} ${y}L${x} ${y + 1.3 * s}L${x - 1.3 * s} ${y}Z`,
  }
  if (kind === 'circle') return svg('circle', { cx: x, cy: y, r: s, ...attributes })
  return svg('path', { d: shapes[kind], ...attributes })
}

function swatch({ colour, dash, marker }) {
  const line = { stroke: colour, 'stroke-width': 2, 'stroke-dasharray': dash || null, fill: 'none' }
  return svg('svg', { class: 'swatch', width: SWATCH, height: 12, 'aria-hidden': 'true' },
    svg('path', { d: `M0 6h${SWATCH}`, ...line }),
    ...(marker ? [mark(marker, SWATCH / 2, 6, 3, { fill: colour })] : []))
}

// --------------------------------------------------------------------------------------------------------- scales
const finite = values => values.filter(value => value !== null && Number.isFinite(value))
const extent = values =>
  values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity])

function scaleOf([low, high], from, to, logarithmic = false) {
  const f = logarithmic ? Math.log : Number
  return value => from + (f(value) - f(low)) / (f(high) - f(low) || 1) * (to - from)
}

function niceTicks([low, high], most) {
  const rough = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 2.5, 5, 10].find(each => each * power >= rough) * power
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9)
  return Array.from({ length: last - first + 1 }, (_, i) => +((first + i) * step).toPrecision(12))
}

function pathOf(points) { // a null interrupts the line
  let pen = 'M'
  const parts = points.map(point => {
    const part = point ? `${pen}${point[0].toFixed(1)} ${point[1].toFixed(1)}` : ''
    pen = point ? 'L' : 'M'
    return part
  })
  return parts.join('')
}

// --------------------------------------------------------------------------------------------------------- panels
// Panel of lines. Each of `series` has a row, a style, x, y and `read`, the text of a point; perhaps low and high,
// the ends of intervals, dots, the values of seeds, and `trained`, the length at which its training ends.
function chart({ title, series, x, y, ticks, logarithmic, shade, references = [], xTitle, yTitle, width }) {
  const height = Math.round(Math.max(230, Math.min(380, 0.62 * width)))
  const box = { left: 46, right: width - 14, top: title ? 44 : 26, bottom: height - 42 }
  const atX = scaleOf(x, box.left + 4, box.right, logarithmic), atY = scaleOf(y, box.bottom, box.top)
  const clip = value => Math.min(Math.max(value, y[0]), y[1])
  const pointsOf = (xs, ys) => xs.map((each, i) => ys[i] === null ? null : [atX(each), atY(clip(ys[i]))])
  const panel = svg('svg', {
    viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', tabindex: 0, class: series.length > FEW && 'many',
    'aria-label': `${[title, `${yTitle} against ${xTitle}`].filter(Boolean).join(': ')}, ${series.length} lines. `
      + 'Arrow keys read values.',
  })
  panel.append(heading(title, width), text(0, box.top - 13, yTitle))
  if (shade) {
    const from = Math.max(atX(Math.max(shade[0], x[0])), box.left), to = Math.min(atX(shade[1]), box.right)
    const size = { width: Math.max(to - from, 1.5), height: box.bottom - box.top }
    const left = from + 46 > box.right // of the shade, so that the word stays in the panel
    panel.append(svg('rect', { x: from, y: box.top, ...size, fill: 'var(--shade)' }),
      text(from + (left ? -4 : 4), box.bottom - 6, 'trained', { 'font-size': 11, 'text-anchor': left && 'end' }))
  }
  drawAxes(panel, box, atX, atY, ticks, niceTicks(y, 5))
  panel.append(text((box.left + box.right) / 2, height - 6, xTitle, { 'text-anchor': 'middle' }))
  for (const { name, values } of references) {
    const points = pointsOf(ticks, values), end = points[points.length - 1]
    const line = { fill: 'none', stroke: 'var(--grey)', 'stroke-width': 1.3, 'stroke-dasharray': '5 4' }
    panel.append(svg('path', { d: pathOf(points), ...line }))
    if (end) panel.append(text(box.right, end[1] - 5, name, { 'text-anchor': 'end', 'font-size': 11, ...HALO }))
  }
  const flat = []
  for (const each of [...series].reverse()) { // the best row on top
    const points = pointsOf(each.x, each.y)
    panel.append(drawLine(each, points, pointsOf))
    points.forEach((point, i) => { if (point) flat.push({ each, i, px: point[0], py: point[1] }) })
  }
  follow(panel, flat, width)
  return panel
}

function drawAxes(panel, box, atX, atY, xTicks, yTicks) {
  for (const value of yTicks) {
    const grid = { d: `M${box.left} ${atY(value)}H${box.right}`, stroke: 'var(--line)', 'stroke-width': 0.8 }
    panel.append(svg('path', grid),
      text(box.left - 6, atY(value) + 4, String(value), { 'text-anchor': 'end', 'font-size': 11.5 }))
  }
  let last = Infinity
  for (const value of [...xTicks].reverse()) { // as many as fit, with the last one
    if (last - atX(value) < 10 + 7 * String(value).length) continue
    last = atX(value)
    panel.append(svg('path', { d: `M${last} ${box.bottom}v4`, stroke: 'var(--grey)' }),
      text(last, box.bottom + 17, String(value), { 'text-anchor': 'middle', 'font-size': 11.5 }))
  }
}

function drawLine(each, points, pointsOf) {
  const { colour, dash, marker } = each.style, known = points.filter(Boolean)
  const group = svg('g', { class: 'series', 'data-row': each.row.index })
  if (each.low && each.low.some(low => low !== null)) {
    const edge = values => pointsOf(each.x, values).filter(Boolean)
    const band = pathOf([...edge(each.high), ...edge(each.low).reverse()])
    group.append(svg('path', { class: 'band', d: `${band}Z`, fill: colour, 'fill-opacity': 0.1 }))
  }
  for (const values of each.dots || []) {
    for (const [cx, cy] of pointsOf(each.x, values).filter(Boolean)) {
      group.append(svg('circle', { class: 'dot', cx: +cx.toFixed(1), cy: +cy.toFixed(1), r: 1.8, fill: colour,
        'fill-opacity': 0.5 }))
    }
  }
  group.append(svg('path', { d: pathOf(points), fill: 'none', stroke: colour, 'stroke-width': each.thin ? 1.2 : 2,
    'stroke-dasharray': dash || null, 'stroke-linejoin': 'round' }))
  const marks = each.thin && known.length > 1 ? [] : known
  group.append(...marks.map(([px, py]) => mark(marker, +px.toFixed(1), +py.toFixed(1), 2.6, { fill: colour })))
  if (each.trained && known.length) {
    const far = i => points[i] ? Math.abs(each.x[i] - each.trained) : Infinity
    const [px, py] = points[each.x.reduce((best, _, i) => far(i) < far(best) ? i : best, 0)] || known[0]
    group.append(svg('path', { d: `M${px} ${py - 8}v16`, stroke: colour, 'stroke-width': 2.2 }))
  }
  return group
}

// Panel of accuracies [lengths, groups of `map.width` positions], in one colour of that strength.
function heatmapOf(map, title, width) {
  const tall = 22, box = { left: 46, right: width - 14, top: 30, bottom: 30 + tall * map.lengths.length }
  const height = box.bottom + 42, cell = (box.right - box.left) / map.values[0].length
  const panel = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img',
    'aria-label': `${title}: accuracy of each position in the answer, one line per length` })
  panel.append(heading(title, width))
  map.values.forEach((line, j) => {
    const y = box.top + j * tall
    panel.append(text(box.left - 6, y + 15, String(map.lengths[j]), { 'text-anchor': 'end', 'font-size': 11.5 }))
    line.forEach((value, i) => {
      if (value === null) return
      const from = i * map.width + 1, to = Math.min((i + 1) * map.width, map.last)
      const where = from === to ? `position ${from}` : `positions ${from} to ${to}`
      const parts = [`length ${map.lengths[j]}, ${where}`, `accuracy ${show(value)}`]
      panel.append(svg('rect', {
        x: (box.left + i * cell).toFixed(2), y, width: (cell - Math.min(1, cell / 8)).toFixed(2), height: tall - 1,
        fill: 'var(--heat)', 'fill-opacity': 0.04 + 0.96 * value,
        pointerenter: event => tell(parts, event.clientX, event.clientY), pointerleave: hush,
      }))
    })
  })
  const ticks = niceTicks([1, map.last], width > 450 ? 8 : 4).filter(each => each > map.last / 16 && each % 1 === 0)
  for (const position of [1, ...ticks.filter(each => each > 1)]) {
    const x = box.left + (position - 0.5) / map.width * cell
    panel.append(text(x, box.bottom + 16, String(position), { 'text-anchor': 'middle', 'font-size': 11.5 }))
  }
  panel.append(text((box.left + box.right) / 2, box.bottom + 36, 'position in the answer, by length; full colour: 1',
    { 'text-anchor': 'middle' }))
  return panel
}

// ---------------------------------------------------------------------------------------------- reading of values
// By pointer, or by arrow keys: left and right change the point, up and down the line.
function follow(panel, flat, width) {
  const ring = svg('circle', { class: 'ring', r: 5.5, fill: 'none', stroke: 'var(--ink)', 'stroke-width': 1.5,
    visibility: 'hidden' })
  panel.append(ring)
  let now = null
  const leave = () => { now = null; ring.setAttribute('visibility', 'hidden'); hush(); light([]) }
  const go = (point, aloud) => {
    now = point
    fill(ring, { cx: point.px, cy: point.py, visibility: 'visible' })
    const frame = panel.getBoundingClientRect(), zoom = frame.width / width, parts = point.each.read(point.i)
    tell(parts, frame.left + point.px * zoom, frame.top + point.py * zoom)
    light([point.each.row])
    if (aloud) byId('said').textContent = parts.join(', ')
  }
  const nearest = (points, far) => points.reduce((best, point) => far(point) < far(best) ? point : best)
  const point = event => {
    if (!flat.length) return
    const frame = panel.getBoundingClientRect(), zoom = width / frame.width
    const px = (event.clientX - frame.left) * zoom, py = (event.clientY - frame.top) * zoom
    go(nearest(flat, point => (point.px - px) ** 2 + (point.py - py) ** 2))
  }
  panel.addEventListener('pointermove', point)
  panel.addEventListener('pointerdown', point)
  panel.addEventListener('pointerleave', event => { if (event.pointerType !== 'touch') leave() }) // a tap stays
  panel.addEventListener('blur', leave)
  panel.addEventListener('keydown', event => {
    const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }
    const [along, across] = keys[event.key] || []
    if (event.key === 'Escape') leave()
    if (along === undefined || !flat.length) return
    event.preventDefault()
    if (!now) return go(flat[flat.length - 1], true)
    const height = point => point.py - now.py || flat.indexOf(point) - flat.indexOf(now) // equal values have an order
    const others = along
      ? flat.filter(point => point.each === now.each && Math.sign(point.i - now.i) === along)
      : flat.filter(point => point.i === now.i && Math.sign(height(point)) === across)
    if (others.length) go(nearest(others, point => along ? Math.abs(point.i - now.i) : Math.abs(height(point))), true)
  })
}

function light(rows) {
  const indices = new Set(rows.map(row => String(row.index)))
  document.querySelectorAll('.panels svg').forEach(panel => panel.classList.toggle('lighting', indices.size > 0))
  document.querySelectorAll('.series').forEach(line => line.classList.toggle('lit', indices.has(line.dataset.row)))
}
