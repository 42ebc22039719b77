// Sorts and filters the table, and draws the figures of chart.js from the JSON in #data.
const DATA = JSON.parse(byId('data').textContent)
const MOST_CURVES = 40 // training curves in a panel, above which seeds are averaged
const MOST_VALUES = 60 // values of a setting that a select offers

// ----------------------------------------------------------------------------------------- rows and their settings
// A dimension is something in which rows differ: the task, a setting, or everything at once ('row').
const several = DATA.problems.length > 1
const settings = DATA.keys.map((key, i) => ({
  key, title: DATA.headers[i], of: row => row.labels[i], labels: !DATA.follows.includes(key),
})).filter(dimension => !(several && dimension.key === 'task'))
const dimensions = several
  ? [{ key: 'task', title: 'task', of: row => DATA.problems[row.problem], labels: true }, ...settings] : settings
const labelling = dimensions.filter(dimension => dimension.labels)  // the others follow from these
DATA.rows.forEach((row, index) => { row.index = index })
const bare = ({ key }) => ['task', 'model.position', 'row'].includes(key)  // its values need no title
const nameOf = (row, without = 'task') =>
  labelling.filter(dimension => dimension.key !== without && dimension.key !== 'task')
    .map(each => bare(each) ? each.of(row) : `${each.title}=${each.of(row)}`).join(', ')
  || labelling.map(each => each.of(row)).join(', ')
const WHOLE = { key: 'row', title: 'row', of: row => nameOf(row) }
const dimension = key => key === 'row' ? WHOLE : dimensions.find(each => each.key === key)
const natural = new Intl.Collator('en', { numeric: true }).compare
const valuesOf = (each, rows = DATA.rows) => [...new Set(rows.map(each.of))].sort(natural)
const searchable = DATA.rows.map(row =>
  dimensions.map(({ title, of }) => `${title}=${of(row)}`).join(' ').toLowerCase())

// --------------------------------------------------------------------------------- state, kept in the URL's hash
const firstPanels = DATA.panels !== 'task' || several ? DATA.panels : 'none'
const defaults = { panels: firstPanels, ...looks(firstPanels), scale: 'auto', measure: 'loss' }
const state = {}

function looks(panels) {
  const varied = labelling.filter(each => each.key !== panels && valuesOf(each).length > 1).map(each => each.key)
  varied.sort((one, other) => valuesOf(dimension(other)).length - valuesOf(dimension(one)).length)
  if (varied.length === 1) return { colour: varied[0], line: 'none' }
  return varied.length === 2 ? { colour: varied[0], line: varied[1] } : { colour: 'row', line: 'none' }
}

function readHash() {
  const found = new URLSearchParams(location.hash.slice(1))
  const split = pair => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]
  const [column, way] = (found.get('sort') || '').split(':')
  const columns = document.querySelectorAll('#table thead th').length
  state.sort = /^\d+$/.test(column) && +column < columns ? { column: +column, down: way === 'down' } : null
  state.find = found.get('find') || ''
  state.only = new Map(found.getAll('only').map(split).filter(([key]) => dimension(key)))
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
  if (hash !== location.hash.slice(1)) setHash(hash)
}

function setHash(hash) {
  history.replaceState(null, '', hash ? `#${hash}` : location.pathname + location.search)
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
// Ranks of the values of each dimension: schemes and rows by score, numbers by size.
const ranks = new Map([...dimensions, WHOLE].map(each => {
  const byScore = each.key === 'model.position' || each.key === 'row'
  const values = byScore ? [...new Set(DATA.rows.map(each.of))] : valuesOf(each)
  return [each.key, new Map(values.map((value, i) => [value, i]))]
}))

// ---------------------------------------------------------------------------------------------------------- table
const body = document.querySelector('#table tbody')
const heads = [...document.querySelectorAll('#table thead th')]
const lines = [...body.rows]

function setUpTable() {
  heads.forEach((head, column) => {
    const sorter = html('button', {
      type: 'button',
      click: () => {  // numbers begin with the largest; a third click restores the order by task and score
        const first = head.classList.contains('n'), now = state.sort
        const same = now && now.column === column
        changed({ sort: !same ? { column, down: first } : now.down === first ? { column, down: !first } : null })
      },
    }, head.textContent)
    head.replaceChildren(sorter)
  })
}

function sortKey(line, column) {
  const cell = line.cells[column], shown = (cell.querySelector('.name') || cell).textContent.trim()
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
    if (row) line.querySelector('.line').replaceChildren(swatch(styleOf(row)))
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
  const search = html('input', {
    type: 'search', id: 'find', placeholder: 'words, or heads=4', input: () => changed({ find: search.value }),
  })
  const boxes = []
  for (const each of dimensions) {
    const values = valuesOf(each)
    if (values.length < 2 || values.length > MOST_VALUES) continue
    const options = [['', 'all'], ...values.map(value => [`=${value}`, value])]
    const box = chooser(`only ${each.key}`, each.title, options, '', value => {
      if (value) state.only.set(each.key, value.slice(1))
      else state.only.delete(each.key)
      changed()
    })
    box.lastChild.dataset.key = each.key
    boxes.push(box)
  }
  byId('filters').append(html('label', {}, 'Find', search), ...boxes,
    button('reset', 'Reset', () => { setHash(''); restore() }), button('save-data', 'Data as CSV', saveData))
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
    chooser('scale', 'Lengths', [['auto', 'automatic'], ['linear', 'linear'], ['log', 'logarithmic']], state.scale,
      scale => changed({ scale })),
    button('save-curves', 'Save as SVG', () => saveFigure('curves')))
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
      return each.key === state.colour ? { ...style, dash: '' } : { ...style, colour: 'var(--grey)', marker: '' }
    }
    const buttons = items.map(value => {
      const highlight = () => light(rows.filter(row => each.of(row) === value))
      return html('button', {
        type: 'button', id: `item ${keyed(value)}`, 'aria-pressed': String(!state.hidden.has(keyed(value))),
        'data-name': bare(each) ? value : `${each.title}=${value}`,
        title: 'Hide or show; with Shift: only this one', click: event => click(value, event),
        pointerenter: highlight, focus: highlight, pointerleave: () => light([]), blur: () => light([]),
      }, swatch(look(value)), String(value))
    })
    const plain = (name, change) =>
      fill(button(`${name} ${each.key}`, name, () => { change(items); changed() }), { class: 'plain' })
    return html('div', {}, html('span', { class: 'title' }, each.title),
      ...(items.length > 2 ? [plain('all', show), plain('none', hide)] : []), ...buttons)
  }))
}

// -------------------------------------------------------------------------------------------------------- figures
function panelsOf(rows) {
  if (state.panels === 'none') return [['', rows]]
  const each = dimension(state.panels)
  const title = value => bare(each) ? value : `${each.title}=${value}`
  return valuesOf(each, rows).map(value => [title(value), rows.filter(row => each.of(row) === value)])
}

function layout(figure, count) {
  const room = Math.max(300, figure.clientWidth), most = room < 620 ? 1 : room < 1000 || count === 4 ? 2 : 3
  const columns = Math.max(1, Math.min(count, most))
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

function spreadOf(row, i) {
  const [low, high] = [row.low[i], row.high[i]]
  if (low === null) return ''
  return DATA.interval === 't' ? ` ± ${show((high - low) / 2)}` : ` [${show(low)}, ${show(high)}]`
}

function renderCurves(rows) {
  const figure = byId('curves'), panels = panelsOf(rows), { grid, width } = layout(figure, panels.length)
  const trained = new Set(DATA.rows.map(row => row.trained.join('-'))), lengths = DATA.lengths
  const low = Math.min(lengths[0], ...DATA.rows.map(row => row.trained[1])), high = lengths[lengths.length - 1]
  const logarithmic = state.scale === 'log' || state.scale === 'auto' && high > 20 * low
  const task = row => state.panels !== 'task' && several ? ` (${DATA.problems[row.problem]})` : ''
  const read = row => i => {
    const baseline = DATA.baselines[row.problem]
    const seeds = row.seeds.slice(0, 10).map((seed, s) => `${seed}: ${show(row.values[s][i])}`).join(', ')
    return [
      nameOf(row) + task(row),
      `length ${lengths[i]}: ${show(row.mean[i])}${spreadOf(row, i)}`,
      ...(row.seeds.length > 1 ? [`seeds ${seeds}`] : []),
      ...(row.diverged ? [`${row.diverged} more diverged`] : []),
      ...(baseline ? [`baseline ${show(baseline[i])}`] : []),
    ]
  }
  for (const [title, inside] of panels) {
    const problems = [...new Set(inside.map(row => row.problem))].filter(problem => DATA.baselines[problem])
    const named = problem => problems.length > 1 ? `baseline, ${DATA.problems[problem]}` : 'baseline'
    grid.append(chart({
      title, width, logarithmic, ticks: lengths, x: [low, high === low ? low + 1 : high], y: valueRange(inside),
      xTitle: 'length', yTitle: DATA.metric.title,
      shade: trained.size === 1 ? DATA.rows[0].trained : null,
      references: problems.map(problem => ({ name: named(problem), values: DATA.baselines[problem] })),
      series: inside.filter(drawn).map(row => ({
        row, style: styleOf(row), x: lengths, y: row.mean, low: row.low, high: row.high,
        dots: row.seeds.length > 1 && row.seeds.length <= 5 ? row.values : [],
        trained: trained.size > 1 ? row.trained[1] : null,
        read: read(row),
      })),
    }))
  }
}

// One curve per row. Seeds of other steps than the first one's, such as those of a shorter run, are left out.
function meanOverSeeds(curves) {
  return [...new Set(curves.map(curve => curve.row))].map(index => {
    const all = curves.filter(curve => curve.row === index), first = all[0]
    const alike = all.filter(curve => String(curve.step) === String(first.step))
    const values = first.step.map((_, i) => {
      const known = finite(alike.map(curve => curve[state.measure][i]))
      return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null
    })
    return { row: index, seed: null, step: first.step, [state.measure]: values }
  })
}

function renderTraining(rows) {
  const section = byId('training'), figure = section.querySelector('figure')
  const names = ['loss', 'accuracy'].filter(name => DATA.training.some(curve => finite(curve[name]).length))
  section.hidden = !names.length
  if (!names.length) return
  if (!names.includes(state.measure)) state.measure = names[0]
  refresh(section.querySelector('.controls'),
    chooser('measure', 'Metric', names.map(name => [name, name]), state.measure, measure => changed({ measure })),
    button('save-training', 'Save as SVG', () => saveFigure('training')))
  const panels = panelsOf(rows).map(([title, inside]) => {
    const shown = new Set(inside.map(row => row.index))
    return [title, DATA.training.filter(curve => shown.has(curve.row))]
  }).filter(([, curves]) => curves.length)
  const { grid, width } = layout(figure, panels.length)
  for (const [title, curves] of panels) {
    const steps = curves.flatMap(curve => curve.step), values = finite(curves.flatMap(curve => curve[state.measure]))
    const x = [0, extent(steps)[1]]
    const [least, most] = extent([0, ...values, ...(state.measure === 'accuracy' ? [1] : [])])
    const seeds = curves.length > MOST_CURVES ? meanOverSeeds(curves) : curves
    grid.append(chart({
      title, width, logarithmic: false, ticks: niceTicks(x, width > 450 ? 8 : 4), x, y: [least, most || 1],
      xTitle: 'step', yTitle: `training ${state.measure}`,
      series: seeds.filter(curve => drawn(DATA.rows[curve.row])).map(curve => {
        const row = DATA.rows[curve.row], seed = curve.seed === null ? 'mean over seeds' : `seed ${curve.seed}`
        const read = i => [nameOf(row), `${seed}, step ${curve.step[i]}: ${show(curve[state.measure][i])}`]
        return { row, style: styleOf(row), x: curve.step, y: curve[state.measure], thin: true, read }
      }),
    }))
  }
}

let heatmap = 0
function renderPositions(rows) {
  const section = byId('positions'), figure = section.querySelector('figure')
  const maps = DATA.positions.filter(map => rows.some(row => row.index === map.row))
  section.hidden = !maps.length
  if (!maps.length) return
  const title = map => {
    const row = DATA.rows[map.row]
    return `${several ? `${DATA.problems[row.problem]}: ` : ''}${nameOf(row)} - ${map.name}`
  }
  const choose = value => { heatmap = +value; renderPositions(rows) }
  heatmap = Math.min(heatmap, maps.length - 1)
  refresh(section.querySelector('.controls'),
    chooser('heatmap', 'Row', maps.map((map, i) => [String(i), title(map)]), String(heatmap), choose),
    button('save-positions', 'Save as SVG', () => saveFigure('positions')))
  const { grid, width } = layout(figure, 1)
  grid.append(heatmapOf(maps[heatmap], title(maps[heatmap]), width))
}

// ---------------------------------------------------------------------------------------------------------- files
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
  const panels = [...byId(id).querySelectorAll('.panels > svg')]
  if (!panels.length) return ''
  const [width, height] = ['width', 'height'].map(name => +panels[0].getAttribute(name))
  const columns = getComputedStyle(byId(id).querySelector('.panels')).gridTemplateColumns.split(' ').length
  const total = columns * (width + 20), whole = svg('svg', { xmlns: SVG, 'font-family': 'sans-serif' })
  panels.forEach((panel, i) => {
    const copy = panel.cloneNode(true), hidden = panel.classList.contains('many') ? '.ring, .band, .dot' : '.ring'
    copy.querySelectorAll(hidden).forEach(each => each.remove())
    for (const each of [copy, ...copy.querySelectorAll('*')]) {
      for (const name of ['class', 'data-row', 'tabindex']) each.removeAttribute(name)
    }
    const place = { x: 10 + i % columns * (width + 20), y: 10 + Math.floor(i / columns) * (height + 16) }
    whole.append(fill(copy, place))
  })
  let x = 10, y = 30 + Math.ceil(panels.length / columns) * (height + 16)
  const items = id === 'positions' ? [] : byId('legend').querySelectorAll('button[aria-pressed=true]')
  for (const item of items) {
    const name = item.dataset.name, needs = 50 + 7.2 * name.length
    if (x + needs > total && x > 10) [x, y] = [10, y + 20]
    const handle = [...item.querySelector('svg').childNodes].map(child => child.cloneNode(true))
    whole.append(svg('g', { transform: `translate(${x} ${y - 10})` }, ...handle),
      text(x + SWATCH + 6, y, name, { fill: 'var(--ink)' }))
    x += needs
  }
  fill(whole, { viewBox: `0 0 ${total} ${y + 14}`, width: total, height: y + 14 })
  whole.prepend(svg('rect', { width: '100%', height: '100%', fill: 'var(--paper)' }))
  return standalone(whole)
}
function saveFigure(id) { save(`${id}.svg`, 'image/svg+xml', svgText(id)) }

// ---------------------------------------------------------------------------------------------------------- start
function render() {
  const rows = DATA.rows.filter(passes)
  hush()
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
addEventListener('pointerdown', event => { if (!event.target.closest('.panels')) { hush(); light([]) } })
let known = innerWidth
addEventListener('resize', () => { if (innerWidth !== known) { known = innerWidth; changed() } })
window.report = { csvText, svgText, state }  // for tests
