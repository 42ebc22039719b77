// The page of a probe: its state, which the address keeps, its controls, views and files.
const DATA = JSON.parse(byId('data').textContent)
const VIEWS = { map: 'Map', lines: 'Lines', channels: 'Channels', heads: 'All heads' }
const STACKS = { encoder: 'encoder', decoder: 'decoder', cross: 'decoder to encoder', second: 'encoder, second sequence' }

const short = value => {
  if (value === null || value === undefined || Number.isNaN(value)) return '-'
  const size = Math.abs(value)
  if (size < 0.00005) return '0'
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(size < 0.01 ? 4 : 2)
}
const BLANKS = { ' ': '␣', '\n': '⏎', '\t': '⇥', '\r': '␍' }
const readable = label => label.replace(/[ \n\t\r]/g, blank => BLANKS[blank]) || '∅'

// ----------------------------------------------------------------------------------------------------- recordings
const several = get => new Set(DATA.recordings.map(get)).size > 1
function nameOf(recording) {
  const differs = name => DATA.recordings.some(each => each.run === recording.run && each[name] !== recording[name])
  const last = each => each.run.replace(/\/+$/, '').split('/').pop()
  const alike = DATA.recordings.some(each => each.run !== recording.run && last(each) === last(recording))
  const run = alike ? recording.run : last(recording)
  const length = recording.length === null ? 'text' : `length ${recording.length}`
  const parts = [
    (several(each => each.run) || DATA.recordings.length === 1) && run,
    differs('position') && recording.position,
    differs('step') && (recording.step === null ? 'last step' : `step ${recording.step}`),
    several(each => each.length) && length,
  ]
  return parts.filter(Boolean).join(', ') || run
}
for (const recording of DATA.recordings) {
  recording.title = nameOf(recording)
  recording.labels = Object.fromEntries(
    Object.entries(recording.tokens).map(([axis, labels]) => [axis, labels.map(readable)]))
  recording.byName = new Map(recording.attentions.map(attention => [attention.name, attention]))
}
const attentionOf = (recording, name) => DATA.recordings[recording].byName.get(name)
const stacks = () => [...new Set(sides().flatMap(side =>
  side.recording === null ? [] : DATA.recordings[side.recording].attentions.map(each => each.stack)))]
// Attentions of the chosen stack, of whichever recording has more.
const places = () => sides().flatMap(side => side.recording === null ? [] : [DATA.recordings[side.recording]])
  .map(recording => recording.attentions.filter(each => each.stack === state.stack))
  .reduce((one, other) => other.length > one.length ? other : one, [])
// Numbers of the heads that any of the recordings has.
const headsOf = name => [...new Set(recorded().flatMap(side => attentionOf(side.recording, name)?.heads ?? []))]
  .sort((one, other) => one - other)
const place = () => places().find(each => each.layer === state.layer) || places()[0]

const sameWeights = (one, other) => ['run', 'position', 'step'].every(name => one[name] === other[name])
const numbers = new Map()
for (const { recording, stack, layer, head, length, ...values } of DATA.statistics) {
  numbers.set(`${recording} ${stack}.${layer} ${head}`, values)
}
for (const { stack, layer, head, length, accuracy, removed } of DATA.ablations) {
  if (head === null || accuracy === null || removed === 'others') continue
  DATA.recordings.forEach((recording, index) => {
    for (const each of stack === 'encoder' ? [stack, 'second'] : [stack]) {
      const own = numbers.get(`${index} ${each}.${layer} ${head}`)
      if (own && sameWeights(recording, DATA.recordings[0])) own[`accuracy without it, length ${length}`] = accuracy
    }
  })
}
const numberNames = [...new Set([...numbers.values()].flatMap(own => Object.keys(own).filter(each => own[each] !== null)))]
const numberName = name => DATA.numbers?.[name] || name.replaceAll('_', ' ')

// What is shown side by side: a recording, perhaps another one, and their difference.
function sideOf(id, index) {
  const { title, labels } = DATA.recordings[index]
  return {
    id, title, recording: index,
    map: (name, head, kind = state.kind) =>
      attentionOf(index, name)?.heads.includes(head) ? mapOf(index, name, head, kind) : null,
    number: (name, head) => numbers.get(`${index} ${name} ${head}`)?.[state.number] ?? null,
    labels: name => {
      const { queries, keys } = attentionOf(index, name) || {}
      return [labels[queries] || [], labels[keys] || []]
    },
  }
}
function sides() {
  const first = sideOf('first', state.a)
  if (state.b === 'none') return [first]
  const second = sideOf('second', +state.b)
  const less = (one, other) => one === null || other === null ? null : one - other
  return [first, second, {
    id: 'difference', title: `${first.title} − ${second.title}`, recording: null,
    map: (name, head, kind = state.kind) => differenceOf(first.map(name, head, kind), second.map(name, head, kind)),
    number: (name, head) => less(first.number(name, head), second.number(name, head)),
    labels: name => [0, 1].map(axis => {
      const [one, other] = [first.labels(name)[axis], second.labels(name)[axis]]
      return one.length < other.length ? one : other
    }),
  }]
}

// --------------------------------------------------------------------------------- state, kept in the URL's hash
const defaults = {
  view: 'map', a: 0, b: DATA.recordings.length > 1 ? '1' : 'none', stack: DATA.recordings[0].attentions[0].stack,
  layer: 0, head: 0, kind: 'weights', number: numberNames[0] || '', scale: 'each', threshold: 0.1,
  from: 0, query: '', key: '', without: 0, alike: 'divergence',
}
const state = {}
const whole = (value, end) => /^\d+$/.test(value) && +value < end

function readHash() {
  const found = new URLSearchParams(location.hash.slice(1)), count = DATA.recordings.length
  Object.assign(state, defaults)
  for (const name of Object.keys(defaults)) {
    if (!found.has(name)) continue
    const value = found.get(name)
    state[name] = typeof defaults[name] === 'number' || ['query', 'key'].includes(name) ? Number(value) : value
  }
  const most = Math.max(...DATA.recordings.flatMap(each => Object.values(each.tokens).map(labels => labels.length)))
  if (!whole(String(state.a), count)) state.a = 0
  if (!whole(state.b, count)) state.b = found.has('b') ? 'none' : defaults.b
  for (const name of ['query', 'key']) if (state[name] !== '' && !whole(String(state[name]), most)) state[name] = ''
  if (!whole(String(state.from), most)) state.from = 0
  for (const [name, choices] of [['view', VIEWS], ['kind', KINDS], ['stack', STACKS], ['alike', MEASURES]]) {
    if (!(state[name] in choices)) state[name] = defaults[name]
  }
  if (!numberNames.includes(state.number)) state.number = defaults.number
  if (!(state.threshold >= 0 && state.threshold <= 1)) state.threshold = defaults.threshold
  settle()
}

// Another recording may have fewer layers, heads or tokens.
function settle() {
  if (!stacks().includes(state.stack)) state.stack = stacks()[0]
  if (!places().some(each => each.layer === state.layer)) state.layer = places()[0].layer
  if (!headsOf(place().name).includes(state.head)) state.head = headsOf(place().name)[0]
  const counts = recorded().map(side => side.labels(place().name).map(labels => labels.length))
  if (state.query !== '' && state.query >= Math.max(...counts.map(([queries]) => queries))) state.query = ''
  if (state.key !== '' && state.key >= Math.max(...counts.map(([, keys]) => keys))) state.key = ''
}

function writeHash() {
  const found = new URLSearchParams()
  for (const [name, value] of Object.entries(defaults)) if (state[name] !== value) found.set(name, state[name])
  const hash = String(found)
  if (hash !== location.hash.slice(1)) {
    history.replaceState(null, '', hash ? `#${hash}` : location.pathname + location.search)
  }
}

let waiting = 0
function changed(changes = {}) {
  Object.assign(state, changes)
  settle()
  cancelAnimationFrame(waiting)
  waiting = requestAnimationFrame(() => { writeHash(); render() })
}

// ------------------------------------------------------------------------------------------------------- controls
function renderControls() {
  const recordings = DATA.recordings.map((each, i) => [String(i), each.title])
  const set = name => value => changed({ [name]: value })
  refresh(byId('controls'),
    ...(recordings.length > 1 ? [
      chooser('a', 'Show', recordings, String(state.a), value => changed({ a: +value })),
      chooser('b', 'beside', [['none', 'nothing'], ...recordings], state.b, set('b')),
    ] : []),
    ...(stacks().length > 1 ? [
      chooser('stack', 'Attention', stacks().map(stack => [stack, STACKS[stack] || stack]), state.stack, set('stack')),
    ] : []),
    chooser('layer', 'Layer', places().map(each => [String(each.layer), String(each.layer)]), String(state.layer),
      value => changed({ layer: +value })),
    chooser('head', 'Head', headsOf(place().name).map(head => [String(head), String(head)]),
      String(state.head), value => changed({ head: +value })),
    chooser('kind', 'Values', Object.entries(KINDS), state.kind, set('kind')),
    chooser('scale', 'Colours', [['each', 'of each head'], ['all', 'alike for all heads']], state.scale,
      set('scale')),
    button('reset', 'Reset', () => { history.replaceState(null, '', location.pathname + location.search); restore() }))
  refresh(byId('overview-controls'),
    chooser('number', 'Number', numberNames.map(name => [name, numberName(name)]), state.number, set('number')))
  refresh(byId('views'), ...Object.entries(VIEWS).map(([view, title]) =>
    fill(button(`view ${view}`, title, () => changed({ view })), { 'aria-pressed': String(state.view === view) })))
  const longest = Math.max(...recorded().flatMap(side => side.labels(place().name).map(labels => labels.length)))
  const slider = html('input', { type: 'range', id: 'threshold', min: 0, max: 1, step: 0.01,
    'aria-valuetext': `${Math.round(100 * state.threshold)} %`, input: () => changed({ threshold: +slider.value }) })
  slider.value = state.threshold
  const start = html('input', { type: 'range', id: 'from', min: 0, max: Math.max(0, longest - WINDOW), step: 1,
    'aria-valuetext': `token ${state.from + 1}`, input: () => changed({ from: +start.value }) })
  start.value = state.from
  const having = recorded().find(side => attentionOf(side.recording, place().name)), [queries] = having.labels(place().name)
  refresh(byId('view-controls'),
    ...(state.view === 'lines' ? [html('label', {}, 'Hide below', slider, ` ${Math.round(100 * state.threshold)} %`)] : []),
    ...(state.view === 'lines' && longest > MOST_AT_ONCE
      ? [html('label', {}, 'From token', start, ` ${state.from + 1} of ${longest}`)] : []),
    ...(state.view === 'channels' ? [chooser('query', 'Query', queries.map((label, i) => [String(i), named(queries, i)]),
      String(queryOf(having)), value => changed({ query: +value }))] : []))
  refresh(byId('files'), saveButtons('view'))
}

// ---------------------------------------------------------------------------------------------------------- views
const PANELS = {
  map: mapPanel, lines: linesPanel, channels: channelsPanel,
  heads: (side, width) => {
    const grid = gridOf(side, width, { most: 180 }), height = +grid.getAttribute('height') + 26
    const panel = svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, class: 'sheet' })
    panel.append(heading(`${side.title}: ${KINDS[state.kind]}, ${numberName(state.number)}`, width), fill(grid, { y: 26 }))
    return panel
  },
}

const recorded = () => sides().filter(side => side.recording !== null)

// Width of each panel and number of columns.
function layout(room, count, least = { map: 270, lines: 270, channels: 420, heads: 330 }[state.view]) {
  const columns = Math.max(1, Math.min(count, Math.floor((room + 20) / (least + 20))))
  return { columns, width: Math.floor((room - 20 * (columns - 1)) / columns) }
}
const shownSides = () => state.view === 'channels' ? sides().filter(side => side.id !== 'difference') : sides()
const panelsOf = width => shownSides().map(side => PANELS[state.view](side, width)).filter(Boolean)

const panelled = (columns, panels) =>
  html('div', { class: 'panels', style: `grid-template-columns: repeat(${columns}, minmax(0, 1fr))` }, ...panels)

function render() {
  hush()
  document.body.classList.toggle('sheet', state.view === 'heads')
  document.body.classList.toggle('beside', state.b !== 'none')
  renderControls()
  const overview = byId('overview-maps')
  const focused = document.activeElement?.closest?.('.grid') && document.activeElement.closest('figure')?.id
  const reading = document.activeElement?.closest?.('#view > .panels > svg')?.dataset.side
  if (state.view !== 'heads') {
    const { columns, width } = layout(Math.max(280, overview.clientWidth), sides().length, 280)
    overview.replaceChildren(panelled(columns, sides().map(side => gridOf(side, width, { most: 84 }))))
  }
  const view = byId('view'), { columns, width } = layout(Math.max(280, view.clientWidth), shownSides().length)
  view.replaceChildren(panelled(columns, panelsOf(width)))
  if (focused) byId(focused)?.querySelector('.cell[aria-pressed=true]')?.focus({ preventScroll: true })
  if (reading) view.querySelector(`[data-side="${reading}"]`)?.focus({ preventScroll: true })
  renderFacts()
  renderAblation()
  renderAlike()
  byId('reading').textContent = READING[state.view]
  if (state.view === 'map') {
    const map = sides()[0].map(place().name, state.head)
    if (map && lockedCell(map)) point(lockedCell(map))
  }
  if (state.view === 'lines') {
    if (lockedToken()) showLines(lockedToken())
  }
}
const READING = {
  map: 'Point at a cell to read it; a click locks it.',
  lines: 'Point at a token to see its lines; a click locks it.',
  channels: 'A row is a key, a column a channel: query times key, scaled. Other: what positions add beyond channels.',
  heads: 'A click chooses a head for the other views.',
}

function renderFacts() {
  const { name } = place()
  byId('facts').replaceChildren(...sides().filter(side => side.recording !== null).map(side => {
    const recording = DATA.recordings[side.recording], attention = attentionOf(side.recording, name)
    const counts = Object.entries(recording.tokens).map(([axis, labels]) => `${labels.length.toLocaleString('en')} ${axis === 'tokens' ? 'tokens' : `${axis} tokens`}`)
    const own = recording.attentions.filter(each => each.stack === state.stack)
    const sizes = new Set(own.map(each => each.heads.length)), total = own.reduce((sum, each) => sum + each.heads.length, 0)
    const parts = [`position ${recording.position}`, sizes.size === 1 ? `${own.length} layers of ${[...sizes][0]} heads`
      : `${total} heads in ${own.length} layers`, ...counts]
    if (recording.step !== null) parts.push(`step ${recording.step}`)
    if (attention?.groups) {
      parts.push(`maps averaged over ${attention.groups.join(' x ')} tokens, ${attention.maps.strongest
        ? `exact weights of the ${attention.maps.strongest.shape[2]} strongest keys of every query` : 'no exact weights'}`)
    } else if (attention) parts.push(`every cell, to ${attention.maps.weights.bits === 16 ? '0.001' : '0.2'} % of the range of its head`)
    return html('div', {}, html('b', {}, side.title), ` ${parts.join(' · ')}`)
  }))
}

function renderAblation() {
  const section = byId('ablation')
  section.hidden = !DATA.ablations.length
  if (section.hidden) return
  const toggle = fill(button('without', state.without ? 'Put the head back' : 'Remove this head',
    () => changed({ without: 1 - state.without })), { 'aria-pressed': String(Boolean(state.without)) })
  refresh(section.querySelector('.controls'), toggle)
  const figure = section.querySelector('figure')
  figure.replaceChildren()
  if (!state.without) return
  const { panel, said } = ablationPanel(Math.max(280, Math.min(560, section.clientWidth)))
  figure.append(panel)
  byId('said').textContent = said
}

// ------------------------------------------------------------------------------------------------------- keyboard
function keyed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return
  if (event.key === 'Escape') {
    changed({ query: '', key: '' })
    byId('said').textContent = 'unlocked'
  }
  if (event.target.closest?.('input, select, textarea')) return
  const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }, move = moves[event.key]
  if (!move) return
  event.preventDefault()
  const layers = places().map(each => each.layer), line = layers.indexOf(state.layer) + move[0]
  const next = places()[Math.max(0, Math.min(layers.length - 1, line))]
  const heads = headsOf(next.name), nearest = heads.findLast(head => head <= state.head) ?? heads[0]
  const head = heads[Math.max(0, Math.min(heads.length - 1, heads.indexOf(nearest) + move[1]))]
  changed({ layer: next.layer, head })
  const value = sides()[0].number(next.name, head)
  byId('said').textContent = `layer ${next.layer}, head ${head}, ${numberName(state.number)} ${show(value)}`
}

// ---------------------------------------------------------------------------------------------------------- start
function restore() { readHash(); render() }

async function start() {
  const packed = DATA.recordings.flatMap(({ attentions, similarity }) => [
    ...attentions.flatMap(({ maps, q, k }) => [...Object.values(maps), ...(q ? [q, k] : [])]),
    ...(similarity || []).flatMap(({ divergence, cka }) => [divergence, cka])])
  await Promise.all(packed.map(unpack))
  document.documentElement.classList.add('live')
  restore()
  addEventListener('hashchange', restore)
  document.addEventListener('keydown', keyed)
  dark.addEventListener('change', render)
  let width = innerWidth
  addEventListener('resize', () => { if (innerWidth !== width) { width = innerWidth; changed() } })
  window.probe = { csvText, svgText, pngBlob, state, sides, place }  // for tests
}
start().catch(error => {
  byId('waiting').textContent = `This browser cannot show the page (${error.message}): it needs one of 2023 or later.`
  throw error
})
