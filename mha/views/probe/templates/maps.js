// Maps of heads: their values, their colours, grids of small maps, and one large map with its read-out.
const KINDS = {
  weights: 'weights', contributions: 'contributions', total: 'logits', content: 'content logits',
  position: 'position logits',
}
const SIGNED = new Set(['total', 'content', 'position'])
const RAMPS = {
  light: {
    weights: ['#fcfdf4', '#e2f0d2', '#a8d8ba', '#5bb7ba', '#2d8cb2', '#2a5f9e', '#28397a', '#191a48'],
    signed: ['#163f86', '#4a80c8', '#a3c3e8', '#f7f7f5', '#f2c08c', '#d9812b', '#984708'],
    hidden: '#e6e9ed', ink: '#24292f',
  },
  dark: {
    weights: ['#1a1e29', '#2b2f60', '#31508a', '#2a7590', '#2a9a86', '#55bd6c', '#a8da45', '#fde725'],
    signed: ['#8cc1ff', '#4385d6', '#264a7c', '#1f2329', '#7a4b20', '#d0832f', '#ffbd75'],
    hidden: '#343b44', ink: '#dfe3e8',
  },
}
const dark = matchMedia('(prefers-color-scheme: dark)')
let forced = ''  // theme of files
const theme = () => forced || (dark.matches ? 'dark' : 'light')

// --------------------------------------------------------------------------------------------------------- values
// Value of packed numbers at an index into one head; null for a hidden cell.
function valueAt(packed, head, index) {
  const code = packed.codes[head * packed.size + index]
  return code === packed.hidden ? null : packed.low[head] + code * packed.unit[head]
}

async function unpack(packed) {
  const response = await fetch(`data:application/octet-stream;base64,${packed.data}`)
  const bytes = await new Response(response.body.pipeThrough(new DecompressionStream('deflate'))).arrayBuffer()
  packed.codes = packed.bits === 16 ? new Uint16Array(bytes) : new Uint8Array(bytes)
  packed.hidden = 2 ** packed.bits - 1
  packed.unit = packed.low.map((low, head) => (packed.high[head] - low) / (packed.hidden - 1))
  packed.size = packed.shape.slice(1).reduce((one, other) => one * other, 1)
  delete packed.data
}

// Map of a head: NaN where the mask hides a key. `rows` and `columns` are groups of tokens if the map is averaged.
const known = new Map()
function mapOf(recording, name, head, kind) {
  const key = `${recording} ${name} ${head} ${kind}`, attention = attentionOf(recording, name)
  if (known.has(key) || !attention) return known.get(key) || null
  const maps = attention.maps, [, rows, columns] = maps.weights.shape, values = new Float32Array(rows * columns)
  const at = attention.heads.indexOf(head), get = (packed, index) => valueAt(packed, at, index) ?? NaN
  for (let i = 0; i < values.length; i++) {
    if (kind === 'total') values[i] = get(maps.content, i) + get(maps.position, i)
    else if (maps[kind]) values[i] = get(maps[kind], i)
    else values[i] = get(maps.weights, i) * valueAt(maps.value_norms, at, i % columns)
  }
  const sizes = attention.groups || [1, 1]
  const signed = SIGNED.has(kind) || maps.weights.low[at] < 0  // mixed heads may have negative weights
  const map = { key, rows, columns, values, sizes, pooled: Boolean(attention.groups), signed }
  known.set(key, map)
  return map
}

// Difference of two maps where both have a cell; null if their cells are not alike.
function differenceOf(one, other) {
  if (!one || !other || String(one.sizes) !== String(other.sizes)) return null
  const key = `${one.key} - ${other.key}`
  if (known.has(key)) return known.get(key)
  const rows = Math.min(one.rows, other.rows), columns = Math.min(one.columns, other.columns)
  const values = new Float32Array(rows * columns)
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      values[i * columns + j] = one.values[i * one.columns + j] - other.values[i * other.columns + j]
    }
  }
  const map = { key, rows, columns, values, sizes: one.sizes, pooled: one.pooled, signed: true, difference: true }
  known.set(key, map)
  return map
}

function reachOf(map) {  // largest absolute value
  if (map.reach === undefined) map.reach = map.values.reduce((most, each) => Math.abs(each) > most ? Math.abs(each) : most, 0)
  return map.reach
}

// -------------------------------------------------------------------------------------------------------- colours
const channels = colour => [1, 3, 5].map(i => parseInt(colour.slice(i, i + 2), 16))
const tables = new Map()
function tableOf(name) {  // 256 colours
  const key = `${theme()} ${name}`
  if (tables.has(key)) return tables.get(key)
  const stops = RAMPS[theme()][name].map(channels), table = []
  for (let i = 0; i < 256; i++) {
    const at = i / 255 * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2)
    table.push(stops[low].map((value, c) => Math.round(value + (stops[low + 1][c] - value) * (at - low))))
  }
  tables.set(key, table)
  return table
}
const level = (value, reach, signed) => {
  const share = reach ? value / reach : 0
  return Math.max(0, Math.min(255, Math.round(255 * (signed ? (share + 1) / 2 : share))))
}

function painted(columns, rows, colourAt) {
  const canvas = html('canvas', { width: columns, height: rows }), context = canvas.getContext('2d')
  const image = context.createImageData(columns, rows)
  for (let i = 0, at = 0; i < columns * rows; i++, at += 4) {
    const [red, green, blue] = colourAt(i)
    image.data[at] = red
    image.data[at + 1] = green
    image.data[at + 2] = blue
    image.data[at + 3] = 255
  }
  context.putImageData(image, 0, 0)
  return canvas.toDataURL()
}

const pictures = new Map()
function pictureOf(map, reach) {
  const key = `${theme()} ${reach} ${map.key}`
  if (pictures.has(key)) return pictures.get(key)
  const table = tableOf(map.signed ? 'signed' : 'weights'), hidden = channels(RAMPS[theme()].hidden)
  const picture = painted(map.columns, map.rows, i => {
    const value = map.values[i]
    return Number.isNaN(value) ? hidden : table[level(value, reach, map.signed)]
  })
  if (pictures.size > 2000) pictures.clear()
  pictures.set(key, picture)
  return picture
}

const imageOf = (map, reach, box) => svg('image', {
  href: pictureOf(map, reach), preserveAspectRatio: 'none', style: 'image-rendering: pixelated', ...box })

// Reach of the colours: of this map, or of those of all heads.
function colourReach(map, alike) {
  if (state.scale === 'each' || !alike.length) return reachOf(map) || 1
  return Math.max(...alike.map(reachOf)) || 1
}
const allMaps = side => places().flatMap(({ name }) => headsOf(name).map(head => side.map(name, head)).filter(Boolean))
const alikeOf = side => state.scale === 'each' ? [] : allMaps(side)

function colourBar(x, y, width, reach, signed) {
  const table = tableOf(signed ? 'signed' : 'weights')
  const bar = svg('image', { href: painted(64, 1, i => table[Math.round(i / 63 * 255)]), x, y, width, height: 8,
    preserveAspectRatio: 'none' })
  const label = (at, value, anchor) => text(at, y + 20, short(value), { 'text-anchor': anchor, 'font-size': 11 })
  return [bar, label(x, signed ? -reach : 0, 'start'), label(x + width, reach, 'end'),
    ...(signed ? [label(x + width / 2, 0, 'middle')] : [])]
}

// ----------------------------------------------------------------------------------------------------- small maps
const barColour = (side, value) =>
  side.id === 'difference' ? RAMPS[theme()].signed[value < 0 ? 1 : 5] : 'var(--heat)'

// Grid with one line per layer and one map per head, under the number of the head. Heads that were pruned leave a gap.
function gridOf(side, width, { numbers = true, most = 96 } = {}) {
  const lines = places().filter(({ name }) => headsOf(name).some(head => side.map(name, head)))
  const heads = 1 + Math.max(0, ...lines.flatMap(({ name }) => headsOf(name)))
  const left = 26, gap = heads > 8 ? 4 : 7, tall = numbers ? 19 : 0
  const size = Math.max(14, Math.min(most, Math.floor((width - left) / heads) - gap))
  const alike = alikeOf(side), step = size + gap + tall, height = 20 + lines.length * step
  const grid = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'group', class: 'grid',
    'aria-label': `${side.title}: maps of all heads, one line per layer. Arrow keys choose a head.` })
  const shown = lines.map(({ name }) => Array.from({ length: heads }, (_, head) => side.number(name, head)))
  const largest = Math.max(...shown.flat().map(value => Math.abs(value ?? 0)), 1e-9)
  for (let head = 0; head < heads; head++) {
    grid.append(text(left + head * (size + gap) + size / 2, 12, String(head), { 'text-anchor': 'middle', 'font-size': 11 }))
  }
  lines.forEach(({ name, layer }, line) => {
    const y = 20 + line * step
    grid.append(text(left - 8, y + size / 2 + 4, String(layer), { 'text-anchor': 'end', 'font-size': 11 }))
    for (let head = 0; head < heads; head++) {
      const x = left + head * (size + gap), map = side.map(name, head), value = shown[line][head]
      if (!map) continue
      const chosen = name === place().name && head === state.head
      const title = [`layer ${layer}, head ${head}`, ...(numbers ? [`${numberName(state.number)} ${show(value)}`] : [])]
      const cell = svg('g', {
        role: 'button', tabindex: chosen ? 0 : -1, 'aria-pressed': String(chosen), 'aria-label': title.join(', '),
        class: 'cell', 'data-head': `${layer}.${head}`,
        click: () => changed({ layer, head }), pointerenter: event => tell(title, event.clientX, event.clientY),
        pointerleave: hush,
      }, imageOf(map, colourReach(map, alike), { x, y, width: size, height: size }))
      if (state.without && chosen && isAblated(side)) {
        cell.append(svg('path', { d: `M${x} ${y}l${size} ${size}M${x + size} ${y}l${-size} ${size}`,
          stroke: '#d9812b', 'stroke-width': 2.5 }))
      }
      cell.append(svg('rect', { x: x - 1.5, y: y - 1.5, width: size + 3, height: size + 3, rx: 2, fill: 'none',
        stroke: chosen ? 'var(--heat)' : 'var(--line)', 'stroke-width': chosen ? 3 : 1, class: 'frame' }))
      if (numbers) {
        const share = Math.abs(value ?? 0) / largest * size
        cell.append(text(x + size / 2, y + size + 13, short(value), { 'text-anchor': 'middle',
          'font-size': size < 26 ? 9.5 : 11, fill: chosen ? 'var(--ink)' : 'var(--grey)' }),
        svg('rect', { x, y: y + size + 16, width: share.toFixed(1), height: 2, fill: barColour(side, value) }))
      }
      grid.append(cell)
    }
  })
  return grid
}

// ------------------------------------------------------------------------------------------------------ large map
const LABEL = 11

function labelWidth(labels, most) {
  const longest = labels.reduce((longest, label) => Math.max(longest, [...label].length), 0)
  return Math.min(most, 10 + 7 * longest)
}
const clipped = (label, most = 12) => [...label].length > most ? [...label].slice(0, most - 1).join('') + '…' : label

// Label of a row or column: a token, or the numbers of a group of them.
function axisLabels(labels, count, size) {
  if (size === 1) return labels.map(label => clipped(label))
  return Array.from({ length: count }, (_, i) => String(i * size + 1))
}

function mapPanel(side, width) {
  const { layer, name } = place(), map = side.map(name, state.head)
  const height0 = 26, panelTitle = `${side.title}: ${KINDS[state.kind]} of layer ${layer}, head ${state.head}`
  if (!map) return missing(side, width, panelTitle)
  const [queries, keys] = side.labels(name)
  const rows = axisLabels(queries, map.rows, map.sizes[0]), columns = axisLabels(keys, map.columns, map.sizes[1])
  const left = labelWidth(rows, 92) + 8, above = labelWidth(columns, 92) + 4
  const cell = Math.min(map.columns < 16 ? 40 : 24, (width - left - 4) / map.columns, Math.max(4, 900 / map.rows))
  const box = { x: left, y: height0 + above, width: cell * map.columns, height: cell * map.rows }
  const height = box.y + box.height + 60, reach = colourReach(map, alikeOf(side))
  const panel = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', tabindex: 0, class: 'map',
    'data-side': side.id, 'aria-label': `${panelTitle}, ${map.rows} queries by ${map.columns} keys. Arrow keys read `
      + 'cells, Enter locks one.' })
  panel.append(heading(side.title, width), imageOf(map, reach, box),
    svg('rect', { ...box, fill: 'none', stroke: 'var(--line)' }))
  const every = Math.ceil(LABEL / cell)
  const at = i => (i + 0.5) * cell
  rows.forEach((label, i) => {
    if (i % every === 0) panel.append(text(left - 6, box.y + at(i) + 4, label, { 'text-anchor': 'end',
      'font-size': LABEL, 'data-row': i }))
  })
  columns.forEach((label, j) => {
    const x = left + at(j) + 4, y = box.y - 6
    if (j % every === 0) panel.append(text(x, y, label, { transform: `rotate(-90 ${x} ${y})`, 'font-size': LABEL,
      'data-column': j }))
  })
  const narrow = box.width < 300, bar = Math.min(130, width - left - 20)
  panel.append(text(left, box.y + box.height + (narrow ? 52 : 20), 'rows: queries, columns: keys', { 'font-size': 11 }),
    ...colourBar(narrow ? left : left + box.width - bar, box.y + box.height + 14, bar, reach, map.signed))
  const line = { fill: 'none', stroke: RAMPS[theme()].ink, 'stroke-width': 1.2, visibility: 'hidden', class: 'cross' }
  panel.append(svg('rect', { ...line, x: box.x, width: box.width, height: cell }),
    svg('rect', { ...line, y: box.y, height: box.height, width: cell }))
  panel.cross = where => {
    const [row, column] = panel.querySelectorAll('.cross')
    const inside = where && where[0] < map.rows && where[1] < map.columns
    for (const each of [row, column]) each.setAttribute('visibility', inside ? 'visible' : 'hidden')
    if (!inside) return null
    fill(row, { y: box.y + where[0] * cell })
    fill(column, { x: box.x + where[1] * cell })
    const frame = panel.getBoundingClientRect(), zoom = frame.width / width
    return [frame.left + (box.x + at(where[1])) * zoom, frame.top + (box.y + at(where[0])) * zoom]
  }
  const where = event => {
    const frame = panel.getBoundingClientRect(), zoom = width / frame.width
    const y = ((event.clientY - frame.top) * zoom - box.y) / cell, x = ((event.clientX - frame.left) * zoom - box.x) / cell
    if (x < 0 || y < 0 || x >= map.columns || y >= map.rows) return null
    return [Math.floor(y), Math.floor(x), Math.min(Math.floor(y * map.sizes[0]), queries.length - 1)]
  }
  const size = [map.rows, map.columns]
  return fill(panel, {
    pointermove: event => point(where(event), panel, event),
    pointerleave: () => point(lockedCell(map)),
    click: event => { const found = where(event); if (found) lock(found, map) },
    keydown: event => stepCell(event, size, map),
    focus: () => { if (panel.matches(':focus-visible') && !cursor) point([0, 0], panel) },
  })
}

const lockedCell = map =>
  state.query === '' || state.key === '' ? null
    : [Math.floor(state.query / map.sizes[0]), Math.floor(state.key / map.sizes[1]), state.query]
function lock([row, column, query], map) {
  const next = { query: map.pooled ? query ?? row * map.sizes[0] : row, key: column * map.sizes[1] }
  changed(state.query === next.query && state.key === next.key ? { query: '', key: '' } : next)
}

let cursor = null
// Shows the crosshair in all maps, and the read-out; without a panel only those of the locked cell.
function point(where, panel, event) {
  cursor = where
  let spot = null
  document.querySelectorAll('#view .map').forEach(each => {
    const found = each.cross(where)
    if (found && (each === panel || !panel && !spot)) spot = found
  })
  if (!where) { hush(); return '' }
  const parts = readCell(where)
  byId('reading').textContent = parts.join('\n')
  if (panel && spot) tell(parts, event ? event.clientX : spot[0], event ? event.clientY : spot[1])
  else hush()
  return parts.join(', ')
}

function stepCell(event, [rows, columns], map) {
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }, move = moves[event.key]
  if (event.key === 'Enter' && cursor) { event.preventDefault(); lock(cursor, map); return }
  if (!move) return
  event.preventDefault()
  event.stopPropagation()
  const [row, column] = cursor || [0, 0]
  const next = [Math.max(0, Math.min(rows - 1, row + move[0])), Math.max(0, Math.min(columns - 1, column + move[1]))]
  byId('said').textContent = point(next, event.currentTarget)
}

const named = (labels, i) => `${i + 1} “${labels[i]}”`
const ranged = (labels, i, size) => {
  const from = i * size, to = Math.min(from + size, labels.length) - 1
  return from === to ? named(labels, from) : `${from + 1} to ${to + 1}`
}

// Everything that is known of a cell, one line per run.
function readCell([row, column, query]) {
  const { name } = place(), parts = []
  for (const side of sides().filter(each => each.id !== 'difference')) {
    const map = side.map(name, state.head)
    if (!map || row >= map.rows || column >= map.columns) continue
    const [queries, keys] = side.labels(name), at = row * map.columns + column
    if (!parts.length) {
      parts.push(`${ranged(queries, row, map.sizes[0])} → ${ranged(keys, column, map.sizes[1])}`)
    }
    const values = Object.keys(KINDS).map(kind => [KINDS[kind], side.map(name, state.head, kind).values[at]])
    const list = Number.isNaN(values[0][1]) ? 'hidden by the mask'
      : values.map(([kind, value]) => `${kind} ${short(value)}`).join(', ')
    parts.push(sides().length > 1 ? `${side.title}: ${list}` : list)
    if (map.pooled) {
      const exact = query ?? row * map.sizes[0], best = strongestOf(side.recording, name, state.head, exact)
      if (best.length) parts.push(`query ${named(queries, exact)}, strongest keys: `
        + best.map(([key, weight]) => `${named(keys, key)} ${short(weight)}`).join(', '))
    }
  }
  return parts
}

// Keys with the largest weights of a query, exactly: [key, weight].
function strongestOf(recording, name, head, query) {
  const { strongest, strongest_weights: weights } = attentionOf(recording, name)?.maps || {}
  if (!strongest) return []
  const count = strongest.shape[2], row = attentionOf(recording, name).heads.indexOf(head)
  return Array.from({ length: count }, (_, n) => query * count + n)
    .map(at => [Math.round(valueAt(strongest, row, at)), valueAt(weights, row, at)]).filter(([, weight]) => weight > 0)
}

function missing(side, width, title) {
  const panel = svg('svg', { viewBox: `0 0 ${width} 60`, width, height: 60, role: 'img', 'aria-label': title })
  const why = side.id === 'difference' ? 'maps averaged over groups of different sizes have no difference'
    : 'this model has no such head'
  panel.append(heading(side.title, width), text(0, 38, why))
  return panel
}
