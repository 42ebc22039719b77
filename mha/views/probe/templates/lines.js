// Lines from queries to keys, after BertViz (Vig, 2019): a token under the pointer shows its own, a click keeps them.
const WINDOW = 64 // tokens that are drawn at once
const MOST_AT_ONCE = 128 // tokens up to which all are drawn
const ROW = 17
const SHADES = 8 // opacities of lines; the lines of one opacity are one path

// Cells of a row, or of a column, that are known exactly: [other index, value].
function cellsOf(side, name, map, axis, index) {
  if (map.pooled) {
    if (axis === 'query') return strongestOf(side.recording, name, state.head, index)
    const [queries] = side.labels(name)
    return queries.flatMap((_, query) => strongestOf(side.recording, name, state.head, query)
      .filter(([key]) => key === index).map(([, weight]) => [query, weight]))
  }
  const found = [], count = axis === 'query' ? map.columns : map.rows
  for (let i = 0; i < count; i++) {
    const value = map.values[axis === 'query' ? index * map.columns + i : i * map.columns + index]
    if (!Number.isNaN(value)) found.push([i, value])
  }
  return found
}

function linesPanel(side, width) {
  const { name, layer } = place(), map = side.map(name, state.head)
  const title = `${side.title}: lines from queries to keys of layer ${layer}, head ${state.head}`
  if (!map || map.pooled && side.id === 'difference') return missing(side, width, title)
  const [queries, keys] = side.labels(name)
  const rows = map.pooled ? queries.length : map.rows, columns = map.pooled ? keys.length : map.columns
  const longest = Math.max(rows, columns), window = longest > MOST_AT_ONCE ? WINDOW : longest
  const from = Math.min(state.from, longest - window)
  const ends = { query: Math.min(rows, from + window), key: Math.min(columns, from + window) }
  const attention = map.pooled && attentionOf(side.recording, name), exact = attention && attention.maps.strongest_weights
  const reach = map.pooled ? exact?.high[attention.heads.indexOf(state.head)] || 1 : colourReach(map, alikeOf(side))
  const gutter = { query: labelWidth(queries, 104) + 26, key: labelWidth(keys, 104) + 72 }
  const left = gutter.query, right = width - gutter.key, middle = (left + right) / 2
  const y = index => 50 + (index - from + 0.5) * ROW
  const height = 58 + (Math.max(ends.query, ends.key) - from) * ROW
  const panel = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', tabindex: 0, class: 'lines',
    'data-side': side.id, 'aria-label': `${title}. Up and down choose a query, Enter locks it.` })
  const base = svg('g', { class: 'all' }), own = svg('g', { class: 'own' })
  panel.append(heading(side.title, width), text(0, 40, 'queries', { 'font-size': 11 }), text(right + 6, 40, 'keys', { 'font-size': 11 }), base, own)
  const colour = value => map.signed ? (value < 0 ? RAMPS[theme()].signed[1] : RAMPS[theme()].signed[5]) : 'var(--heat)'
  const curve = (query, key) =>
    `M${left} ${y(query).toFixed(1)}C${middle} ${y(query).toFixed(1)} ${middle} ${y(key).toFixed(1)} ${right} ${y(key).toFixed(1)}`
  const near = index => Math.max(from - 1, Math.min(from + window, index))  // lines to tokens elsewhere end at the edge
  const least = state.threshold * reach

  const paths = new Map()
  for (let query = from; query < ends.query; query++) {
    for (const [key, value] of cellsOf(side, name, map, 'query', query)) {
      const size = Math.abs(value)
      if (size < least || size === 0 || key < from || key >= ends.key) continue
      const shade = Math.min(SHADES, Math.ceil(size / reach * SHADES)), kind = `${shade} ${colour(value)}`
      if (!paths.has(kind)) paths.set(kind, { shade, colour: colour(value), parts: [] })
      paths.get(kind).parts.push(curve(query, key))
    }
  }
  for (const { shade, colour, parts } of [...paths.values()].sort((one, other) => one.shade - other.shade)) {
    base.append(svg('path', { d: parts.join(''), fill: 'none', stroke: colour, 'stroke-width': 1.5,
      'stroke-opacity': (shade / SHADES * 0.85).toFixed(2) }))
  }

  const tokens = { query: [], key: [] }
  for (const [axis, labels] of [['query', queries], ['key', keys]]) {
    for (let index = from; index < ends[axis]; index++) {
      const query = axis === 'query', x = query ? left - 6 : right + 6
      const box = { x: query ? 0 : right + 1, y: y(index) - ROW / 2, width: query ? left - 1 : gutter.key - 1, height: ROW }
      const chosen = { axis, index }
      const token = svg('g', { class: 'token', 'data-token': `${axis}${index}`,
        pointerenter: () => showLines(chosen), click: () => lockToken(chosen) },
      svg('rect', { ...box, fill: 'transparent' }), svg('rect', { class: 'bar', ...box, rx: 2, fill: 'var(--heat)',
        'fill-opacity': 0 }),
      text(x, y(index) + 4, clipped(labels[index]), { 'text-anchor': query ? 'end' : 'start', fill: 'var(--ink)' }),
      text(query ? 2 : width - 2, y(index) + 4, '', { class: 'value', 'font-size': 10.5, fill: 'var(--ink)',
        'text-anchor': query ? 'start' : 'end' }))
      if (Math.max(ends.query, ends.key) - from > 1) {
        token.append(svg('title', {}, `${axis} ${named(labels, index)}`))
      }
      tokens[axis].push(token)
      panel.append(token)
    }
  }

  panel.draw = active => {
    own.replaceChildren()
    base.setAttribute('opacity', active ? 0.14 : 1)
    for (const axis of ['query', 'key']) {
      for (const token of tokens[axis]) {
        token.querySelector('.bar').setAttribute('fill-opacity', 0)
        token.querySelector('.value').textContent = ''
      }
    }
    if (!active || active.index >= (active.axis === 'query' ? rows : columns)) return []
    const other = active.axis === 'query' ? 'key' : 'query', cells = cellsOf(side, name, map, active.axis, active.index)
    const mine = tokens[active.axis][active.index - from]
    if (mine) fill(mine.querySelector('.bar'), { 'fill-opacity': 0.3, fill: 'var(--grey)' })
    for (const [index, value] of cells) {
      const share = Math.min(1, Math.abs(value) / reach), token = tokens[other][index - from]
      if (token) fill(token.querySelector('.bar'), { 'fill-opacity': (share * 0.6).toFixed(3), fill: colour(value) })
      if (Math.abs(value) < least || !value) continue
      if (token) token.querySelector('.value').textContent = short(value)
      if (!mine) continue
      const pair = active.axis === 'query' ? [active.index, near(index)] : [near(index), active.index]
      own.append(svg('path', { d: curve(...pair), fill: 'none', stroke: colour(value), 'stroke-width': 2,
        'stroke-opacity': Math.max(0.08, share).toFixed(3) }))
    }
    const [labels, others] = active.axis === 'query' ? [queries, keys] : [keys, queries]
    const best = [...cells].sort((one, other) => Math.abs(other[1]) - Math.abs(one[1])).slice(0, 5)
    return [`${active.axis} ${named(labels, active.index)}`,
      `${sides().length > 1 ? `${side.title}, ` : ''}largest ${map.pooled ? 'weights' : KINDS[state.kind]}: `
        + best.map(([index, value]) => `${named(others, index)} ${short(value)}`).join(', ')]
  }
  return fill(panel, {
    pointerleave: () => showLines(lockedToken()),
    keydown: event => {
      const move = { ArrowUp: -1, ArrowDown: 1 }[event.key], now = shownToken || { axis: 'query', index: from - 1 }
      if (event.key === 'Enter' && shownToken) { event.preventDefault(); lockToken(shownToken) }
      if (!move) return
      event.preventDefault()
      event.stopPropagation()
      const end = ends[now.axis] - 1
      byId('said').textContent = showLines({ ...now, index: Math.max(from, Math.min(end, now.index + move)) })
    },
  })
}

let shownToken = null
function showLines(active) {
  shownToken = active
  const parts = [...document.querySelectorAll('#view .lines')].map(panel => panel.draw?.(active) || [])
    .filter(each => each.length)
  const said = [...new Set(parts.flat())].join('\n')
  byId('reading').textContent = said
  return said
}

function lockedToken() {
  if (state.query !== '') return { axis: 'query', index: state.query }
  return state.key === '' ? null : { axis: 'key', index: state.key }
}

function lockToken({ axis, index }) {
  const now = lockedToken(), same = now && now.axis === axis && now.index === index
  changed({ query: '', key: '', ...(same ? {} : { [axis]: index }) })
}
