'use strict'
// Sorts and filters the table, and draws the figures from the JSON in #data. Names from runs enter the page only as
// text nodes and attributes, never as HTML.
;(() => {
const DATA = JSON.parse(document.getElementById('data').textContent)
const byId = id => document.getElementById(id)
const SVG = 'http://www.w3.org/2000/svg'
const MARKERS = ['circle', 'square', 'up', 'diamond', 'down']
const FEW = 6        // lines in a panel, up to which bands and seeds are drawn for all of them
const MOST_VALUES = 60  // values of a setting that a select offers

// ------------------------------------------------------------------------------------------------------- elements
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name, value)
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value)
  }
  element.append(...children.filter(child => child !== null))
  return element
}
const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children)
const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children)
const text = (x, y, string, attributes = {}) =>
  svg('text', { x, y, 'font-size': 12, fill: 'var(--ink)', ...attributes }, string)

// Replaces children that a person may be using: the focus stays on the element of the same id.
function refresh(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.id : ''
  parent.replaceChildren(...children)
  if (focused) byId(focused)?.focus()
}

function chooser(id, title, options, value, change) {
  const select = html('select', { id, change: () => change(select.value) })
  for (const [key, name] of options) select.append(html('option', { value: key }, name))
  select.value = value
  return html('label', {}, title, select)
}

// ----------------------------------------------------------------------------------------- rows and their settings
// A dimension is something in which rows differ: the task, a setting, or everything at once ('row').
const several = DATA.problems.length > 1
const settings = DATA.keys.map((key, i) => ({ key, title: DATA.headers[i], of: row => row.labels[i] }))
  .filter(dimension => !(several && dimension.key === 'task'))
const dimensions = several
  ? [{ key: 'task', title: 'task', of: row => DATA.problems[row.problem] }, ...settings] : settings
DATA.rows.forEach((row, index) => { row.index = index })
const nameOf = (row, without = 'task') =>
  dimensions.filter(dimension => dimension.key !== without && dimension.key !== 'task')
    .map(({ key, title, of }) => key === 'model.position' ? of(row) : `${title}=${of(row)}`).join(', ')
  || row.labels.join(', ')
const WHOLE = { key: 'row', title: 'row', of: row => nameOf(row) }
const dimension = key => key === 'row' ? WHOLE : dimensions.find(each => each.key === key)
const natural = new Intl.Collator('en', { numeric: true }).compare
const valuesOf = (each, rows = DATA.rows) => [...new Set(rows.map(each.of))].sort(natural)
const searchable = DATA.rows.map(row =>
  dimensions.map(({ title, of }) => `${title}=${of(row)}`).join(' ').toLowerCase())

// --------------------------------------------------------------------------------- state, kept in the URL's hash
const defaults = { panels: several ? 'task' : 'none', ...looks(several ? 'task' : 'none'), scale: 'auto', measure: 'loss' }
const state = {}

function looks(panels) {
  const varied = dimensions.filter(each => each.key !== panels && valuesOf(each).length > 1).map(each => each.key)
  varied.sort((one, other) => valuesOf(dimension(other)).length - valuesOf(dimension(one)).length)
  if (varied.length === 1) return { colour: varied[0], line: 'none' }
  return varied.length === 2 ? { colour: varied[0], line: varied[1] } : { colour: 'row', line: 'none' }
}

function readHash() {
  const found = new URLSearchParams(location.hash.slice(1))
  const pairs = name => found.getAll(name).map(pair => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)])
  const [column, way] = (found.get('sort') || '').split(':')
  const columns = document.querySelectorAll('#table thead th').length
  state.sort = /^\d+$/.test(column) && +column < columns ? { column: +column, down: way === 'down' } : null
  state.find = found.get('find') || ''
  state.only = new Map(pairs('only').filter(([key]) => dimension(key)))
  state.hidden = new Set(found.getAll('hide'))
  for (const name of Object.keys(defaults)) state[name] = found.get(name) || defaults[name]
  for (const name of ['panels', 'colour', 'line']) {
    if (state[name] !== 'none' && !dimension(state[name])) state[name] = defaults[name]
  }
}

function writeHash() {
  const found = new URLSearchParams()
  if (state.sort) found.set('sort', `${state.sort.column}:${state.sort.down ? 'down' : 'up'}`)
  if (state.find) found.set('find', state.find)
  state.only.forEach((value, key) => found.append('only', `${key}=${value}`))
  state.hidden.forEach(item => found.append('hide', item))
  for (const [name, value] of Object.entries(defaults)) if (state[name] !== value) found.set(name, state[name])
  const hash = String(found)
  if (hash !== location.hash.slice(1)) history.replaceState(null, '', hash ? `#${hash}` : location.pathname + location.search)
}

let waiting = 0
function changed(changes = {}) {
  Object.assign(state, changes)
  cancelAnimationFrame(waiting)
  waiting = requestAnimationFrame(() => { writeHash(); render() })
}

const passes = row => {
  const words = state.find.toLowerCase().split(/\s+/).filter(Boolean)
  return words.every(word => searchable[row.index].includes(word))
    && [...state.only].every(([key, value]) => dimension(key).of(row) === value)
}
const drawn = row => legendDimensions().every(each => !state.hidden.has(`${each.key}=${each.of(row)}`))
const legendDimensions = () => [...new Set([state.colour, state.line])].filter(key => key !== 'none').map(dimension)

// ---------------------------------------------------------------------------------------------------- line styles
function styleOf(row) {
  const rank = key => key === 'none' ? 0 : ranks.get(key).get(dimension(key).of(row))
  const colour = rank(state.colour), line = rank(state.line), round = Math.floor(colour / DATA.palette.length)
  return {
    colour: DATA.palette[colour % DATA.palette.length],
    dash: DATA.dashes[(state.line === 'none' || state.line === state.colour ? round : line) % DATA.dashes.length],
    marker: MARKERS[round % MARKERS.length],
  }
}
const order = each => [...new Set(DATA.rows.map(each.of))]  // best first
const ranks = new Map([...dimensions, WHOLE].map(each =>
  [each.key, new Map((each.key === 'model.position' || each.key === 'row' ? order(each) : valuesOf(each)).map((value, i) => [value, i]))]))

function mark(kind, x, y, size, attributes) {
  const s = size, shapes = {
    square: `M${x - s} ${y - s}h${2 * s}v${2 * s}h${-2 * s}Z`,
    up: `M${x} ${y - s}L${x + s} ${y + s}H${x - s}Z`,
    down: `M${x} ${y + s}L${x + s} ${y - s}H${x - s}Z`,
    diamond: `M${x} ${y - 1.3 * s}L${x + 1.3 * s} ${y}L${x} ${y + 1.3 * s}L${x - 1.3 * s} ${y}Z`,
  }
  return kind === 'circle' ? svg('circle', { cx: x, cy: y, r: s, ...attributes }) : svg('path', { d: shapes[kind], ...attributes })
}

function swatch({ colour, dash, marker }, x = 0, y = 6) {
  return [
    svg('path', { d: `M${x} ${y}h26`, stroke: colour, 'stroke-width': 2, 'stroke-dasharray': dash || null, fill: 'none' }),
    mark(marker, x + 13, y, 3, { fill: colour }),
  ]
}
const swatchOf = style => svg('svg', { class: 'swatch', width: 26, height: 12, 'aria-hidden': 'true' }, ...swatch(style))

// ---------------------------------------------------------------------------------------------------------- table
const body = document.querySelector('#table tbody')
const heads = [...document.querySelectorAll('#table thead th')]
const lines = [...body.rows]

function setUpTable() {
  heads.forEach((head, column) => {
    const button = html('button', {
      type: 'button',
      click: () => {  // numbers begin with the largest; a third click restores the order by task and score
        const first = head.classList.contains('n'), now = state.sort
        const same = now && now.column === column
        changed({ sort: !same ? { column, down: first } : now.down === first ? { column, down: !first } : null })
      },
    }, head.textContent)
    head.replaceChildren(button)
  })
}

function sortKey(line, column) {
  const shown = line.cells[column].textContent.trim()
  if (!heads[column].classList.contains('n')) return shown
  const value = parseFloat(shown.replace(/,/g, ''))
  return Number.isNaN(value) ? null : value
}

function renderTable() {
  const shown = new Set(DATA.rows.filter(passes))
  const problems = new Set([...shown].map(row => row.problem))
  for (const line of lines) {
    const row = DATA.rows[line.dataset.row]
    line.hidden = row ? !shown.has(row) : !problems.has(+line.dataset.problem)
    if (row) line.querySelector('.line').replaceChildren(swatchOf(styleOf(row)))
    if (row) line.querySelectorAll('.dots circle').forEach(dot => { dot.style.fill = styleOf(row).colour })
  }
  let sorted = lines
  if (state.sort) {
    const { column, down } = state.sort, keys = new Map(lines.map(line => [line, sortKey(line, column)]))
    sorted = [...lines].sort((one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)]
      if (a === null || b === null) return (a === null) - (b === null)
      const way = typeof a === 'number' ? a - b : natural(a, b)
      return down ? -way : way
    })
  }
  body.append(...sorted)
  heads.forEach((head, column) => {
    const way = state.sort && state.sort.column === column ? (state.sort.down ? 'descending' : 'ascending') : 'none'
    head.setAttribute('aria-sort', way)
  })
  byId('count').textContent = shown.size < DATA.rows.length ? `${shown.size} of ${DATA.rows.length} rows` : ''
}

// -------------------------------------------------------------------------------------------- filters and legend
function setUpFilters() {
  const search = html('input', { type: 'search', id: 'find', placeholder: 'words, or heads=4', input: () => changed({ find: search.value }) })
  const boxes = dimensions.map(each => [each, valuesOf(each)]).filter(([, values]) => values.length > 1 && values.length <= MOST_VALUES)
    .map(([each, values]) => {
      const label = chooser(`only ${each.key}`, each.title, [['', 'all'], ...values.map(value => [`=${value}`, value])], '', value => {
        if (value) state.only.set(each.key, value.slice(1))
        else state.only.delete(each.key)
        changed()
      })
      label.lastChild.dataset.key = each.key
      return label
    })
  byId('filters').append(html('label', {}, 'Find', search), ...boxes,
    html('button', { type: 'button', id: 'reset', click: () => { history.replaceState(null, '', location.pathname + location.search); restore() } }, 'Reset'),
    html('button', { type: 'button', id: 'save-data', click: saveData }, 'Data as CSV'))
  byId('filters').addEventListener('submit', event => event.preventDefault())
}

function renderFilters() {
  const search = byId('find')
  if (search.value !== state.find) search.value = state.find
  byId('filters').querySelectorAll('select').forEach(select => {
    select.value = state.only.has(select.dataset.key) ? `=${state.only.get(select.dataset.key)}` : ''
  })
}

function renderLooks() {
  const keys = dimensions.filter(each => valuesOf(each).length > 1).map(each => [each.key, each.title])
  const change = name => value => {
    const next = name === 'panels' ? { panels: value, ...looks(value) } : { [name]: value }
    changed({ ...next, hidden: new Set() })
  }
  refresh(byId('looks'),
    ...(keys.length > 1 ? [
      chooser('panels', 'Panels', [['none', 'one'], ...keys], state.panels, change('panels')),
      chooser('colour', 'Colour', [['row', 'each row'], ...keys], state.colour, change('colour')),
      chooser('line', 'Dashes', [['none', 'none'], ...keys], state.line, change('line')),
    ] : []),
    chooser('scale', 'Lengths', [['auto', 'automatic'], ['linear', 'linear'], ['log', 'logarithmic']], state.scale, scale => changed({ scale })),
    html('button', { type: 'button', id: 'save-curves', click: () => saveFigure('curves') }, 'Save as SVG'))
}

function renderLegend(rows) {
  const both = state.line !== 'none' && state.line !== state.colour
  refresh(byId('legend'), ...legendDimensions().map(each => {
    const first = new Map()  // the first row of every value
    rows.forEach(row => { if (!first.has(each.of(row))) first.set(each.of(row), row) })
    const items = [...first.keys()].sort((one, other) => ranks.get(each.key).get(one) - ranks.get(each.key).get(other))
    const keyed = value => `${each.key}=${value}`
    const show = values => values.forEach(value => state.hidden.delete(keyed(value)))
    const hide = values => values.forEach(value => state.hidden.add(keyed(value)))
    const click = (value, event) => {
      const others = items.filter(item => item !== value), hidden = state.hidden.has(keyed(value))
      if (event.shiftKey && !hidden && others.every(item => state.hidden.has(keyed(item)))) show(items)
      else if (event.shiftKey) { hide(others); show([value]) }
      else (hidden ? show : hide)([value])
      changed()
    }
    const look = value => {
      const style = styleOf(first.get(value))
      if (!both) return style
      return each.key === state.colour ? { ...style, dash: '' } : { ...style, colour: 'var(--grey)', marker: 'circle' }
    }
    const buttons = items.map(value => {
      const highlight = () => light(rows.filter(row => each.of(row) === value))
      return html('button', {
        type: 'button', id: `item ${keyed(value)}`, 'aria-pressed': String(!state.hidden.has(keyed(value))),
        title: 'Hide or show; with Shift: only this one', click: event => click(value, event),
        pointerenter: highlight, focus: highlight, pointerleave: () => light([]), blur: () => light([]),
      }, swatchOf(look(value)), String(value))
    })
    const plain = (name, change) =>
      html('button', { type: 'button', class: 'plain', id: `${name} ${each.key}`, click: () => { change(items); changed() } }, name)
    return html('div', {}, html('span', { class: 'title' }, each.title),
      ...(items.length > 2 ? [plain('all', show), plain('none', hide)] : []), ...buttons)
  }))
}

function light(rows) {
  const indices = new Set(rows.map(row => String(row.index)))
  document.querySelectorAll('.panels svg').forEach(panel => panel.classList.toggle('lighting', indices.size > 0))
  document.querySelectorAll('.series').forEach(line => line.classList.toggle('lit', indices.has(line.dataset.row)))
}

// --------------------------------------------------------------------------------------------------------- charts
const show = value => value === null || value === undefined ? '-' : Math.abs(value) >= 1000 ? value.toFixed(0) : value.toFixed(3)
const finite = values => values.filter(value => value !== null && Number.isFinite(value))
const HALO = { stroke: 'var(--paper)', 'stroke-width': 3, 'paint-order': 'stroke' }
// Text that loses its beginning if it is too long.
const fit = (string, width) => string.length * 7.6 > width ? `…${string.slice(-Math.floor(width / 7.6))}` : string
const extent = values => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity])
const scaleOf = (low, high, from, to, log) => {
  const f = log ? Math.log : Number
  return value => from + (f(value) - f(low)) / (f(high) - f(low) || 1) * (to - from)
}

function niceTicks(low, high, most) {
  const rough = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(rough))
  const step = [1, 2, 2.5, 5, 10].find(each => each * power >= rough) * power, found = []
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(+(i * step).toPrecision(12))
  return found
}

// One panel. `series` have a row, a style, x, y, and perhaps half (widths of intervals) and dots (values of seeds).
function chart({ title, series, x, y, ticks, log, shade, references = [], xTitle, yTitle, width }) {
  const height = Math.round(Math.max(230, Math.min(380, 0.62 * width)))
  const box = { left: 46, right: width - 14, top: title ? 44 : 26, bottom: height - 42 }
  const atX = scaleOf(...x, box.left + 4, box.right, log), atY = scaleOf(...y, box.bottom, box.top)
  const clip = value => Math.min(Math.max(value, y[0]), y[1])
  const points = (xs, ys) => xs.map((each, i) => ys[i] === null ? null : [atX(each), atY(clip(ys[i]))])
  const path = pairs => {
    let pen = 'M'
    return pairs.map(pair => { if (!pair) { pen = 'M'; return '' } const part = `${pen}${pair[0].toFixed(1)} ${pair[1].toFixed(1)}`; pen = 'L'; return part }).join('')
  }
  const panel = svg('svg', {
    viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', tabindex: 0, class: series.length > FEW ? 'many' : '',
    'aria-label': `${title ? `${title}: ` : ''}${yTitle} against ${xTitle}, ${series.length} lines. Arrow keys read the values.`,
  })
  panel.append(text(0, 14, fit(title, width), { 'font-weight': 600, 'font-size': 13 }), text(0, box.top - 13, yTitle, { fill: 'var(--grey)' }))
  if (shade) {
    const [from, to] = [Math.max(atX(Math.max(shade[0], x[0])), box.left), Math.min(atX(shade[1]), box.right)]
    panel.append(svg('rect', { x: from, y: box.top, width: Math.max(to - from, 1.5), height: box.bottom - box.top, fill: 'var(--shade)' }),
      text(from + 4, box.bottom - 6, 'trained', { fill: 'var(--grey)', 'font-size': 11 }))
  }
  for (const value of niceTicks(...y, 5)) {
    panel.append(svg('path', { d: `M${box.left} ${atY(value)}H${box.right}`, stroke: 'var(--line)', 'stroke-width': 0.8 }),
      text(box.left - 6, atY(value) + 4, String(value), { 'text-anchor': 'end', fill: 'var(--grey)', 'font-size': 11.5 }))
  }
  let last = Infinity
  for (const value of [...ticks].reverse()) {
    const room = 10 + 7 * String(value).length
    if (last - atX(value) < room) continue
    last = atX(value)
    panel.append(svg('path', { d: `M${last} ${box.bottom}v4`, stroke: 'var(--grey)' }),
      text(last, box.bottom + 17, String(value), { 'text-anchor': 'middle', fill: 'var(--grey)', 'font-size': 11.5 }))
  }
  panel.append(text((box.left + box.right) / 2, height - 6, xTitle, { 'text-anchor': 'middle', fill: 'var(--grey)' }))
  for (const { name, values } of references) {
    const way = points(ticks, values)
    panel.append(svg('path', { d: path(way), fill: 'none', stroke: 'var(--grey)', 'stroke-width': 1.3, 'stroke-dasharray': '5 4' }))
    const end = way[way.length - 1]
    if (end) panel.append(text(box.right, end[1] - 5, name, { 'text-anchor': 'end', fill: 'var(--grey)', 'font-size': 11, ...HALO }))
  }
  const flat = []
  for (const each of [...series].reverse()) {  // the best row on top
    const { colour, dash, marker } = each.style, way = points(each.x, each.y)
    const group = svg('g', { class: 'series', 'data-row': each.row.index })
    if (each.half && each.half.some(half => half !== null)) {
      const upper = points(each.x, each.y.map((value, i) => value === null || each.half[i] === null ? null : value + each.half[i]))
      const lower = points(each.x, each.y.map((value, i) => value === null || each.half[i] === null ? null : value - each.half[i]))
      const edge = [...upper.filter(Boolean), ...lower.filter(Boolean).reverse()]
      if (edge.length) group.append(svg('path', { class: 'band', d: `${path(edge)}Z`, fill: colour, 'fill-opacity': 0.1 }))
    }
    for (const dots of each.dots || []) {
      points(each.x, dots).filter(Boolean).forEach(([cx, cy]) => group.append(svg('circle', { class: 'dot', cx: cx.toFixed(1), cy: cy.toFixed(1), r: 1.8, fill: colour, 'fill-opacity': 0.5 })))
    }
    group.append(svg('path', { d: path(way), fill: 'none', stroke: colour, 'stroke-width': each.thin ? 1.2 : 2, 'stroke-dasharray': dash || null, 'stroke-linejoin': 'round' }))
    if (!each.thin) way.filter(Boolean).forEach(([cx, cy]) => group.append(mark(marker, +cx.toFixed(1), +cy.toFixed(1), 2.6, { fill: colour })))
    if (each.trainedTick) {
      const nearest = each.x.reduce((best, value, i) => Math.abs(value - each.trainedTick) < Math.abs(each.x[best] - each.trainedTick) ? i : best, 0)
      if (way[nearest]) group.append(svg('path', { d: `M${way[nearest][0]} ${way[nearest][1] - 8}v16`, stroke: colour, 'stroke-width': 2.2 }))
    }
    way.forEach((pair, i) => { if (pair) flat.push({ each, i, px: pair[0], py: pair[1] }) })
    panel.append(group)
  }
  const ring = svg('circle', { r: 5.5, fill: 'none', stroke: 'var(--ink)', 'stroke-width': 1.5, visibility: 'hidden' })
  panel.append(ring)
  follow(panel, ring, flat, width)
  return panel
}

// Reading of values by pointer or arrow keys: left and right change the point, up and down the line.
function follow(panel, ring, flat, width) {
  let now = null
  const leave = () => { now = null; ring.setAttribute('visibility', 'hidden'); byId('tip').hidden = true; light([]) }
  const go = (point, spoken) => {
    now = point
    fill(ring, { cx: point.px, cy: point.py, visibility: 'visible' }, [])
    const frame = panel.getBoundingClientRect(), zoom = frame.width / width
    const parts = point.each.read(point.i)
    tell(parts, frame.left + point.px * zoom, frame.top + point.py * zoom)
    light([point.each.row])
    if (spoken) byId('said').textContent = parts.join(', ')
  }
  panel.addEventListener('pointermove', event => {
    if (!flat.length) return
    const frame = panel.getBoundingClientRect(), zoom = width / frame.width
    const [px, py] = [(event.clientX - frame.left) * zoom, (event.clientY - frame.top) * zoom]
    const far = point => (point.px - px) ** 2 + (point.py - py) ** 2
    go(flat.reduce((best, point) => far(point) < far(best) ? point : best))
  })
  panel.addEventListener('pointerleave', leave)
  panel.addEventListener('blur', leave)
  panel.addEventListener('keydown', event => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key]
    if (event.key === 'Escape') leave()
    if (!step || !flat.length) return
    event.preventDefault()
    if (!now) { go(flat[flat.length - 1], true); return }
    const candidates = step[0]
      ? flat.filter(point => point.each === now.each && Math.sign(point.i - now.i) === step[0])
      : flat.filter(point => point.i === now.i && point !== now && Math.sign(point.py - now.py || flat.indexOf(point) - flat.indexOf(now)) === step[1])
    const far = point => step[0] ? Math.abs(point.i - now.i) : Math.abs(point.py - now.py)
    if (candidates.length) go(candidates.reduce((best, point) => far(point) < far(best) ? point : best), true)
  })
}

function tell(parts, left, top) {
  const tip = byId('tip')
  tip.replaceChildren(html('b', {}, parts[0]), ...parts.slice(1).map(part => html('div', {}, part)))
  tip.hidden = false
  tip.style.left = `${Math.max(4, Math.min(left + 14, innerWidth - tip.offsetWidth - 8))}px`
  tip.style.top = `${top + 14 + tip.offsetHeight > innerHeight ? top - tip.offsetHeight - 12 : top + 14}px`
}

// -------------------------------------------------------------------------------------------------------- figures
function panelsOf(rows) {
  if (state.panels === 'none') return [['', rows]]
  const each = dimension(state.panels)
  const title = value => each.key === 'task' || each.key === 'model.position' || each.key === 'row' ? value : `${each.title}=${value}`
  return valuesOf(each, rows).map(value => [title(value), rows.filter(row => each.of(row) === value)])
}

function layout(figure, count) {
  const room = Math.max(300, figure.clientWidth), columns = count < 2 || room < 620 ? 1 : room < 1000 || count === 2 || count === 4 ? 2 : 3
  const grid = html('div', { class: 'panels', style: `grid-template-columns: repeat(${columns}, minmax(0, 1fr))` })
  figure.replaceChildren(grid)
  return { grid, width: Math.floor((room - 19 * (columns - 1)) / columns) }
}

function valueRange(rows) {
  const [low, high] = DATA.metric.limits
  const values = finite(rows.flatMap(row => row.values.flat()))
  if (low !== null && high !== null) return [low, high]
  if (!values.length) return [0, 1]
  const [least, most] = extent(values), margin = 0.05 * (most - least) || 0.1
  return [least - margin, most + margin]
}

function renderCurves(rows) {
  const figure = byId('curves'), panels = panelsOf(rows), { grid, width } = layout(figure, panels.length)
  const trained = new Set(DATA.rows.map(row => row.trained.join('-'))), lengths = DATA.lengths
  const low = Math.min(lengths[0], ...DATA.rows.map(row => row.trained[1])), high = lengths[lengths.length - 1]
  const log = state.scale === 'log' || state.scale === 'auto' && high > 20 * low
  for (const [title, inside] of panels) {
    const problems = [...new Set(inside.map(row => row.problem))].filter(problem => DATA.baselines[problem])
    grid.append(chart({
      title, width, log, ticks: lengths, x: [low, high === low ? low + 1 : high], y: valueRange(inside),
      xTitle: 'length', yTitle: DATA.metric.title,
      shade: trained.size === 1 ? DATA.rows[0].trained : null,
      references: problems.map(problem => ({ name: problems.length > 1 ? `baseline, ${DATA.problems[problem]}` : 'baseline', values: DATA.baselines[problem] })),
      series: inside.filter(drawn).map(row => ({
        row, style: styleOf(row), x: lengths, y: row.mean, half: row.half, dots: row.seeds.length > 1 && row.seeds.length <= 5 ? row.values : [],
        trainedTick: trained.size > 1 ? row.trained[1] : null,
        read: i => {
          const baseline = DATA.baselines[row.problem], half = row.half[i]
          return [nameOf(row) + (state.panels !== 'task' && several ? ` (${DATA.problems[row.problem]})` : ''),
            `length ${lengths[i]}: ${show(row.mean[i])}${half === null ? '' : ` ± ${show(half)}`}`,
            ...(row.seeds.length > 1 ? [`seeds ${row.seeds.map((seed, s) => `${seed}: ${show(row.values[s][i])}`).slice(0, 10).join(', ')}`] : []),
            ...(baseline ? [`baseline ${show(baseline[i])}`] : [])]
        },
      })),
    }))
  }
}

function renderTraining(rows) {
  const section = byId('training'), figure = section.querySelector('figure')
  const names = ['loss', 'accuracy'].filter(name => DATA.training.some(curve => finite(curve[name]).length))
  section.hidden = !names.length
  if (!names.length) return
  if (!names.includes(state.measure)) state.measure = names[0]
  refresh(section.querySelector('.controls'),
    chooser('measure', 'Metric', names.map(name => [name, name]), state.measure, measure => changed({ measure })),
    html('button', { type: 'button', id: 'save-training', click: () => saveFigure('training') }, 'Save as SVG'))
  const panels = panelsOf(rows).map(([title, inside]) => {
    const shown = new Set(inside.map(row => row.index))
    return [title, DATA.training.filter(curve => shown.has(curve.row))]
  }).filter(([, curves]) => curves.length)
  const { grid, width } = layout(figure, panels.length)
  for (const [title, curves] of panels) {
    const steps = curves.flatMap(curve => curve.step), values = finite(curves.flatMap(curve => curve[state.measure]))
    const x = [0, extent(steps)[1]]
    const [least, most] = extent([0, ...values, ...(state.measure === 'accuracy' ? [1] : [])])
    grid.append(chart({
      title, width, log: false, ticks: niceTicks(...x, width > 450 ? 8 : 4), x, y: [least, most || 1],
      xTitle: 'step', yTitle: `training ${state.measure}`,
      series: curves.filter(curve => drawn(DATA.rows[curve.row])).map(curve => {
        const row = DATA.rows[curve.row]
        return { row, style: styleOf(row), x: curve.step, y: curve[state.measure], thin: true,
          read: i => [nameOf(row), `seed ${curve.seed}, step ${curve.step[i]}: ${show(curve[state.measure][i])}`] }
      }),
    }))
  }
}

let heatmap = 0
function renderPositions(rows) {
  const section = byId('positions'), figure = section.querySelector('figure'), shown = new Set(rows.map(row => row.index))
  const maps = DATA.positions.filter(map => shown.has(map.row))
  section.hidden = !maps.length
  if (!maps.length) return
  const title = map => `${several ? `${DATA.problems[DATA.rows[map.row].problem]}: ` : ''}${nameOf(DATA.rows[map.row])} - ${map.name}`
  heatmap = Math.min(heatmap, maps.length - 1)
  refresh(section.querySelector('.controls'),
    chooser('heatmap', 'Row', maps.map((map, i) => [String(i), title(map)]), String(heatmap), value => { heatmap = +value; renderPositions(rows) }),
    html('button', { type: 'button', id: 'save-positions', click: () => saveFigure('positions') }, 'Save as SVG'))
  const map = maps[heatmap], { grid, width } = layout(figure, 1), rowHeight = 22
  const box = { left: 46, right: width - 14, top: 30 }, height = box.top + rowHeight * map.lengths.length + 42
  const cell = (box.right - box.left) / map.values[0].length
  const panel = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': `${title(map)}: accuracy of each position in the answer, one line per length` })
  panel.append(text(0, 14, fit(title(map), width), { 'font-weight': 600, 'font-size': 13 }))
  map.values.forEach((line, j) => {
    const y = box.top + j * rowHeight
    panel.append(text(box.left - 6, y + 15, String(map.lengths[j]), { 'text-anchor': 'end', fill: 'var(--grey)', 'font-size': 11.5 }))
    line.forEach((value, i) => {
      if (value === null) return
      const from = i * map.width + 1, to = Math.min((i + 1) * map.width, map.last)
      const parts = [`length ${map.lengths[j]}, ${from === to ? `position ${from}` : `positions ${from} to ${to}`}`, `accuracy ${show(value)}`]
      panel.append(svg('rect', {
        x: (box.left + i * cell).toFixed(2), y, width: (cell - Math.min(1, cell / 8)).toFixed(2), height: rowHeight - 1, fill: 'var(--heat)',
        'fill-opacity': 0.04 + 0.96 * value, pointerenter: event => tell(parts, event.clientX, event.clientY),
        pointerleave: () => { byId('tip').hidden = true },
      }))
    })
  })
  const bottom = box.top + rowHeight * map.lengths.length
  for (const position of [1, ...niceTicks(1, map.last, width > 450 ? 8 : 4).filter(each => each > map.last / 16)]) {
    if (Number.isInteger(position)) panel.append(text(box.left + (position - 0.5) / map.width * cell, bottom + 16, String(position), { 'text-anchor': 'middle', fill: 'var(--grey)', 'font-size': 11.5 }))
  }
  panel.append(text((box.left + box.right) / 2, bottom + 36, 'position in the answer, by length; full colour: 1', { 'text-anchor': 'middle', fill: 'var(--grey)' }))
  grid.append(panel)
}

// ---------------------------------------------------------------------------------------------------------- files
function save(name, type, content) {
  const address = URL.createObjectURL(new Blob([content], { type }))
  const link = html('a', { href: address, download: name })
  document.body.append(link)
  link.click()
  link.remove()
  setTimeout(() => URL.revokeObjectURL(address), 1000)
}

const csvCell = value => /[",\r\n]/.test(String(value)) ? `"${String(value).replace(/"/g, '""')}"` : String(value)

// The rows that pass the filters, in the form of results.csv.
function csvText() {
  const table = [[...DATA.keys, 'seed', 'length', DATA.metric.name]]
  for (const row of DATA.rows.filter(passes)) {
    row.seeds.forEach((seed, s) => DATA.lengths.forEach((length, i) =>
      table.push([...row.labels, seed, length, row.values[s][i] === null ? 'nan' : row.values[s][i]])))
  }
  return table.map(line => line.map(csvCell).join(',')).join('\n') + '\n'
}
function saveData() { save('results.csv', 'text/csv', csvText()) }

// One SVG of all panels and the legend, in the colours of light mode, which needs no style sheet.
function svgText(id) {
  const panels = [...byId(id).querySelectorAll('.panels > svg')], [width, height] = ['width', 'height'].map(name => +panels[0].getAttribute(name))
  const columns = getComputedStyle(byId(id).querySelector('.panels')).gridTemplateColumns.split(' ').length
  const total = columns * (width + 20), whole = svg('svg', { xmlns: SVG, 'font-family': 'sans-serif' })
  panels.forEach((panel, i) => {
    const copy = panel.cloneNode(true)
    copy.querySelectorAll('[visibility=hidden]').forEach(each => each.remove())
    if (panel.classList.contains('many')) copy.querySelectorAll('.band, .dot').forEach(each => each.remove())
    copy.querySelectorAll('[class], [data-row]').forEach(each => { each.removeAttribute('class'); each.removeAttribute('data-row') })
    for (const name of ['tabindex', 'class', 'style']) copy.removeAttribute(name)
    whole.append(fill(copy, { x: 10 + i % columns * (width + 20), y: 10 + Math.floor(i / columns) * (height + 16) }, []))
  })
  let x = 10, y = 30 + Math.ceil(panels.length / columns) * (height + 16)
  const items = id === 'positions' ? [] : byId('legend').querySelectorAll('button[aria-pressed=true]')
  items.forEach(button => {
    const name = button.textContent, needs = 50 + 7.2 * name.length
    if (x + needs > total && x > 10) { x = 10; y += 20 }
    const handle = svg('g', { transform: `translate(${x} ${y - 10})` }, ...[...button.querySelector('svg').childNodes].map(child => child.cloneNode(true)))
    whole.append(handle, text(x + 32, y, name))
    x += needs
  })
  fill(whole, { viewBox: `0 0 ${total} ${y + 14}`, width: total, height: y + 14 }, [])
  whole.prepend(svg('rect', { width: '100%', height: '100%', fill: 'var(--paper)' }))
  const light = { ink: '#24292f', grey: '#626b75', shade: '#f1f3f6', line: '#d5dae0', paper: '#ffffff', heat: '#0072b2' }
  return new XMLSerializer().serializeToString(whole).replace(/"var\(--(\w+)\)"/g, (_, name) => `"${light[name]}"`)
}
function saveFigure(id) { save(`${id}.svg`, 'image/svg+xml', svgText(id)) }

// ---------------------------------------------------------------------------------------------------------- start
function render() {
  const rows = DATA.rows.filter(passes)
  byId('tip').hidden = true
  renderTable()
  renderFilters()
  renderLooks()
  renderLegend(rows)
  renderCurves(rows)
  renderTraining(rows)
  renderPositions(rows)
}
function restore() { readHash(); render() }

setUpTable()
setUpFilters()
document.documentElement.classList.add('live')
restore()
addEventListener('hashchange', restore)
let known = innerWidth
addEventListener('resize', () => { if (innerWidth !== known) { known = innerWidth; changed() } })
window.report = { csvText, svgText, state }  // for tests
})()
