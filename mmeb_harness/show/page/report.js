const runs = summary.runs;
const PAGE = 25;

function difference(points) {
  if (points === null) return null;
  const text = tenths(points);
  const zero = Math.abs(points) < 0.05;
  const kind = zero ? '' : points > 0 ? 'up' : 'down';
  return h('span', { class: `difference ${kind}`, title: 'points against the first run' }, zero ? '±0.0' : points > 0 ? `+${text}` : text.replace('-', '−'));
}

// ---- the summary

function showSummary() {
  const models = [...new Set(runs.map((run) => run.model))];
  document.getElementById('title').replaceChildren('Evaluation of ', ...models.flatMap((model, place) => [place ? ', ' : '', said(model)]));
  const queries = summary.tasks.reduce((sum, task) => sum + task.num_queries, 0);
  const editions = [...new Set(runs.map((run) => run.edition || 'none'))].join(', ');
  const data = [...new Set(runs.map((run) => run.data))];
  document.getElementById('subtitle').append(...data.flatMap((one, place) => [place ? ', ' : '', said(one)]), ', edition ', said(editions), ` · ${count(runs.length)} ${runs.length === 1 ? 'run' : 'runs'} · ${count(summary.tasks.length)} tasks · ${count(queries)} queries`);
  const synthetic = summary.warning ? [summary.warning] : [];
  document.getElementById('warnings').append(...[...synthetic, ...summary.remarks].map((remark) => said(remark, 'li')));
  document.getElementById('runs').append(runsTable(), runDetails());
  document.getElementById('means').append(...[meansTable()].flat().filter(Boolean));
  document.getElementById('pictures').hidden = !document.querySelector('#pictures figure');
  document.getElementById('tasks').append(...tasksTable());
  document.getElementById('footer').append(`Written ${summary.written} by mmeb-harness. Score: mean over tasks of ${summary.metrics}, in %. Latency: of an item in its batch. Small numbers beside a score are points against the first run.`);
}

const rate = (part, whole) => (whole ? part / whole : 0);
const reasoningRate = (stats) => rate(stats.reasoned, stats.items);
const tokensEach = (stats) => (stats.reasoned ? rate(stats.reasoning_tokens, stats.reasoned) : null);
const latencies = (run, side) => ['p50', 'p95'].map((name) => milliseconds(run.latency_seconds[side]?.[name] ?? null)).join(' / ');

function runsTable() {
  const columns = [
    [summary.overall === 'overall' ? 'Overall' : summary.overall, (run, number) => meanOf(summary.overall, number)],
    ['Queries that reason, %', (run) => percent(reasoningRate(run.queries))],
    ['Tokens each', (run) => decimal(1)(tokensEach(run.queries))],
    ['Truncated', (run) => count(run.queries.truncated)],
    ['Query latency p50 / p95, ms', (run) => latencies(run, 'queries')],
    ['Candidates that reason, %', (run) => percent(reasoningRate(run.candidates))],
    ['Candidate latency p50 / p95, ms', (run) => latencies(run, 'candidates')],
    // Of several modes at once it is no mode's own.
    ['Queries / s', (run) => (run.queries.shared ? NONE : count(Math.round(rate(run.queries.encoded, run.queries.seconds))))],
  ];
  const head = h('tr', {}, h('th', { scope: 'col' }, 'Run'), h('th', { scope: 'col' }, 'Reasoning'), columns.map(([label]) => h('th', { scope: 'col', class: 'number' }, label)));
  const rows = runs.map((run, number) => h('tr', {},
    h('th', { scope: 'row' }, named(run.name), h('div', {}, run.marks.map((mark) => tag(mark, 'warn')))),
    h('td', {}, said(String(run.settings.reasoning ?? NONE))),
    columns.map(([, cell]) => h('td', { class: 'number' }, cell(run, number)))));
  return scrolling('Runs', h('table', { class: 'wide' }, h('caption', {}, 'What each run reached, and what it took'), h('thead', {}, head), h('tbody', {}, rows)));
}

function meanOf(name, number) {
  const row = summary.means.flat().find((one) => one.name === name);
  return row ? scoreOfMean(row.cells[number]) : NONE;
}

const scoreOfMean = (cell) => (cell.unsupported ? 'unsupported' : cell.score === null ? NONE : cell.tasks === cell.of ? percent(cell.score) : `${cell.tasks} of ${cell.of} tasks`);

function runDetails() {
  const cards = runs.map((run) => {
    const facts = { Model: run.model, Data: run.data, Edition: run.edition || 'none', Profile: run.profile, ...run.details, Settings: Object.entries(run.settings).map(([key, value]) => `${key}=${value}`).join(', ') };
    return h('div', {}, said(run.name, 'h3'), h('dl', {}, Object.entries(facts).map(([label, value]) => [h('dt', {}, label), said(value, 'dd')])));
  });
  return h('details', {}, h('summary', {}, 'Profiles, settings, versions'), h('div', { class: 'profiles small' }, cards));
}

function meansTable() {
  if (!summary.means.length) return h('p', {}, 'None of these tasks belongs to the benchmark, whose means would stand here.');
  const head = h('tr', {}, h('th', { scope: 'col' }, 'Mean over'), h('th', { scope: 'col', class: 'number' }, 'Tasks'), runs.map((run) => h('th', { scope: 'col', class: 'number run' }, named(run.name))));
  const body = summary.means.map((block) => h('tbody', {}, block.map((row) => h('tr', { class: row.name === summary.overall ? 'strong' : '' },
    h('th', { scope: 'row' }, said(row.name)), h('td', { class: 'number' }, String(row.cells[0].of)),
    row.cells.map((cell) => h('td', { class: 'number' }, scoreOfMean(cell), ' ', difference(cell.difference), cell.score !== null && !cell.unsupported && cell.tasks === cell.of ? bar(cell.score) : null))))));
  const table = h('table', {}, h('caption', {}, 'Scores by groups, modalities and overall, in %'), h('thead', {}, head), body);
  return [scrolling('Scores', table), summary.rules.length ? h('ul', { class: 'notes' }, summary.rules.map((rule) => said(rule, 'li'))) : null];
}

// ---- the table of tasks

const taskMeasures = {
  score: ['Score, %', (cell) => cell.score, percent],
  random_ties: ['Score if ties fell at random, %', (cell) => cell.random_ties, percent],
  corrected: ['Score, every grade on its own label, %', (cell) => cell.corrected, percent],
  reasoning_rate: ['Queries that reason, %', (cell) => reasoningRate(cell.queries), percent],
  tokens: ['Tokens of a query that reasons', (cell) => tokensEach(cell.queries), decimal(1)],
  truncated: ['Truncated rationales', (cell) => cell.queries.truncated, count],
  tied: ['Decisions by tie', (cell) => cell.tied, count],
  latency: ['Query latency p50, ms', (cell) => cell.latency_seconds, milliseconds],
};

function tasksTable() {
  const state = { words: '', modality: '', group: '', measure: 'score', only: '' };
  const distinct = (key) => [...new Set(summary.tasks.map((task) => task[key]))].map((one) => [one, one]);
  const meaning = [
    summary.reasoning_pairs ? ' Helped, hurt: queries that score higher or lower where one model reasoned than where it did not.' : '',
    runs.length > 1 ? ' Differ: queries on whose score the runs differ.' : '',
  ];
  const table = new SortedTable({ caption: 'All tasks; a name opens its queries', columns: taskColumns(state.measure), keyOf: (task) => task.name });
  const refresh = () => table.setRows(summary.tasks.filter((task) => fits(task, state)));
  const set = (key) => (value) => { state[key] = value; refresh(); };
  const kinds = [['', 'all']];
  if (summary.reasoning_pairs) kinds.push(['helped', 'where reasoning helped'], ['hurt', 'where reasoning hurt']);
  if (runs.length > 1) kinds.push(['differ', 'where runs differ']);
  const tools = h('div', { class: 'tools' },
    search('Task', set('words')),
    choice('Modality', [['', 'all'], ...distinct('modality')], set('modality')),
    choice('Group', [['', 'all'], ...distinct('group')], set('group')),
    kinds.length > 1 ? choice('Only', kinds, set('only')) : null,
    choice('Show per run', Object.entries(taskMeasures).map(([key, [label]]) => [key, label]), (value) => table.setColumns(taskColumns(value))));
  refresh();
  return [tools, h('p', { class: 'small quiet' }, meaning.join('')), table.element];
}

function fits(task, { words, modality, group, only }) {
  return (!words || task.name.toLowerCase().includes(words.trim().toLowerCase())) && (!modality || task.modality === modality)
    && (!group || task.group === group) && (!only || task[only] > 0);
}

function taskColumns(measure) {
  const [, value, format] = taskMeasures[measure];
  const text = (key, label) => ({ key, label, className: 'minor', value: (task) => task[key].toLowerCase(), cell: (task) => said(task[key]) });
  const number = (key, label, format = count) => ({ key, label, className: 'minor', numeric: true, first: 'descending', value: (task) => task[key], cell: (task) => format(task[key]) });
  const valueOf = (task, place) => (task.cells[place] === null ? null : value(task.cells[place]));
  const ofRun = (run, place) => ({
    key: `run-${place}`, label: run.name, numeric: true, run: true, first: 'descending',
    value: (task) => valueOf(task, place),
    cell: (task) => [task.cells[place] === null && run.unsupported[task.name] ? 'unsupported' : format(valueOf(task, place)), ' ', place > 0 && measure === 'score' ? difference(pointsApart(valueOf(task, place), valueOf(task, 0))) : null],
  });
  const columns = [
    { key: 'name', label: 'Task', value: (task) => task.name.toLowerCase(), cell: (task) => h('a', { href: linkTo(task.name) }, named(task.name, /(?<=[_/-])/)) },
    text('modality', 'Modality'), text('group', 'Group'), text('metric', 'Metric'), number('num_queries', 'Queries'), number('chance', 'Chance, %', percent),
    ...runs.map(ofRun),
  ];
  if (summary.reasoning_pairs) columns.push(number('helped', 'Helped'), number('hurt', 'Hurt'));
  if (runs.length > 1) columns.push(number('differ', 'Differ'));
  return columns;
}

const pointsApart = (a, b) => (a === null || b === null ? null : 100 * (a - b));

// ---- one task

const whole = new Promise((done) => {
  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', done, { once: true });
  else done();
});
const unpacked = new Map();

/** A task's queries: base64 of deflated JSON, unpacked when first asked for. */
function unpack(number) {
  if (!unpacked.has(number)) unpacked.set(number, read(number));
  return unpacked.get(number);
}

async function read(number) {
  await whole;
  const packed = document.getElementById(`task-${number}`).textContent;
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return JSON.parse(await new Response(stream).text());
}

const linkTo = (task, query = null) => `#${new URLSearchParams(query === null ? { task } : { task, query })}`;

const queryMeasures = {
  rank: ['Rank of the first relevant', (run, row) => run.rank[row], (rank) => rankText(rank), 'ascending'],
  score: ['Score, %', (run, row) => run.score[row], percent, 'descending'],
  gate: ['Gate, p(reason)', (run, row) => run.gate[row], decimal(3), 'descending'],
  tokens: ['Tokens', (run, row) => run.reasoning_tokens[row], count, 'descending'],
  latency: ['Latency, ms', (run, row) => run.latency_seconds[row], milliseconds, 'descending'],
};

function rankText(rank) {
  if (rank === null) return NONE;
  return h('span', { class: rank === 1 ? 'right' : 'wrong' }, rank === 1 ? '✓ 1' : `✗ ${count(rank)}`);
}

const bit = (name) => (task, row) => (task.flags[row] & summary.flags[name]) !== 0;
const inRun = (test) => (task, row, of) => task.runs.some((run, number) => run !== null && (of === '' || Number(of) === number) && run.score[row] !== null && test(run, row));
const filters = {
  helped: ['Reasoning helped', bit('helped')],
  hurt: ['Reasoning hurt', bit('hurt')],
  differ: ['Runs differ', bit('differ')],
  right: ['Right', inRun((run, row) => run.rank[row] === 1)],
  wrong: ['Wrong', inRun((run, row) => run.rank[row] !== 1)],
  reasoned: ['Reasoned', inRun((run, row) => run.reasoned[row])],
  tie: ['Tie', inRun((run, row) => run.tied[row] > 0)],
  truncated: ['Truncated', inRun((run, row) => run.truncated[row])],
  easy: ['Easy', (task, row) => task.difficulty?.[row] === 'easy'],
  hard: ['Hard', (task, row) => task.difficulty?.[row] === 'hard'],
  pictured: ['With pictures or sounds', bit('pictured')],
};

function shownFilters(task) {
  const left = new Set();
  if (!summary.reasoning_pairs) left.add('helped').add('hurt');
  if (runs.length < 2) left.add('differ');
  if (!task.difficulty) left.add('easy').add('hard');
  return Object.entries(filters).filter(([name]) => !left.has(name));
}

/** What a run wrote about a query, or `null`. */
function rationaleOf(task, run, row) {
  const number = run?.rationale[row] ?? null;
  return number === null ? null : task.rationales[number];
}

/** Lower-case words of a query, of what was written about it, and of the candidates shown. */
function wordsOf(task, row) {
  const { items, candidates } = task;
  const shown = new Set([...task.relevant[row], ...task.runs.flatMap((run) => run?.top[row] ?? [])]);
  const texts = [task.ids[row], items?.texts[row], items?.instructions[row], ...task.runs.map((run) => rationaleOf(task, run, row))];
  for (const one of shown) texts.push(candidates.ids[one], candidates.texts?.[one]);
  return texts.filter(Boolean).join('\n').toLowerCase();
}

async function showTask(number, query) {
  const place = document.getElementById('task');
  const row = summary.tasks[number];
  const title = said(row.name, 'h2', { tabindex: '-1' });
  place.replaceChildren(taskNavigation(number), title);
  document.getElementById('overview').hidden = true;
  place.hidden = false;
  title.focus({ preventScroll: true });
  scrollTo(0, 0);
  let task;
  try {
    task = await unpack(number);
  } catch (error) {
    place.append(h('p', { role: 'alert' }, typeof DecompressionStream === 'undefined' ? 'This browser is too old to unpack the queries.' : `The queries of this task can't be unpacked (${error.message}): is the file complete?`));
    return;
  }
  if (place.contains(title)) place.append(...taskParts(task, row, query));
  if (query !== null) place.table.reveal(query);
}

function taskNavigation(number) {
  const link = (other, text) => (summary.tasks[other] ? h('a', { href: linkTo(summary.tasks[other].name) }, text) : null);
  return h('nav', { class: 'pager', 'aria-label': 'Tasks' }, h('a', { href: '#' }, '← All tasks'), link(number - 1, '‹ Previous task'), link(number + 1, 'Next task ›'));
}

function taskParts(task, row, query) {
  const state = { words: [], of: '', pressed: new Set(), measure: 'rank' };
  const words = new Map();
  const table = new SortedTable({
    caption: `Queries of ${row.name}`, columns: queryColumns(task, row, state.measure), keyOf: (one) => task.ids[one], size: PAGE,
    open: (one) => queryDetail(task, row, one),
    opened: (key) => history.replaceState(null, '', linkTo(row.name, key)),
  });
  document.getElementById('task').table = table;
  const everything = task.ids.map((_, one) => one);
  const contains = (one) => {
    if (!words.has(one)) words.set(one, wordsOf(task, one));
    return state.words.every((word) => words.get(one).includes(word));
  };
  const chips = shownFilters(task).map(([name, [label, test]]) => {
    const chip = h('button', { type: 'button', class: 'chip', 'aria-pressed': 'false', 'data-filter': name, click: () => {
      state.pressed[state.pressed.has(name) ? 'delete' : 'add'](name);
      chip.setAttribute('aria-pressed', state.pressed.has(name));
      refresh();
    } });
    chip.count = () => { chip.textContent = `${label} ${count(everything.filter((one) => test(task, one, state.of)).length)}`; };
    return chip;
  });
  const refresh = () => {
    const tests = [...state.pressed].map((name) => filters[name][1]);
    table.setRows(everything.filter((one) => tests.every((test) => test(task, one, state.of)) && (!state.words.length || contains(one))));
  };
  const tools = h('div', { class: 'tools' },
    search('Words in queries, rationales, candidates', (value) => { state.words = value.toLowerCase().split(/\s+/).filter(Boolean); refresh(); }),
    runs.length > 1 ? choice('Right, wrong, tie … in', [['', 'any run'], ...runs.map((run, number) => [String(number), run.name])], (value) => { state.of = value; chips.forEach((chip) => chip.count()); refresh(); }) : null,
    choice('Show per run', Object.entries(queryMeasures).map(([key, [label]]) => [key, label]), (value) => table.setColumns(queryColumns(task, row, value))));
  chips.forEach((chip) => chip.count());
  refresh();
  return [
    h('p', { class: 'quiet' }, `${row.modality}, ${row.group}, ${row.metric} · ${count(row.num_queries)} queries, ${count(row.num_candidates)} candidates · chance ${percent(row.chance)} %`),
    task.note ? h('p', {}, tag('note', 'warn'), said(task.note)) : null,
    task.thumbnails?.missing.length ? h('p', {}, tag('note', 'warn'), `${count(task.thumbnails.missing.length)} pictures or sounds can't be opened, the first is `, said(task.thumbnails.missing[0])) : null,
    taskScores(row), h('h3', { class: 'spaced' }, 'Queries'), tools, h('fieldset', { class: 'chips', 'aria-label': 'Filters' }, chips), table.element,
  ].filter(Boolean);
}

function taskScores(row) {
  const same = ['random_ties', 'corrected'].filter((key) => row.cells.every((cell) => cell === null || percent(cell[key]) === percent(cell.score)));
  const measures = Object.entries(taskMeasures).filter(([key]) => !same.includes(key)).map(([, measure]) => measure);
  const head = h('tr', {}, h('th', { scope: 'col' }, 'Run'), measures.map(([label]) => h('th', { scope: 'col', class: 'number' }, label)));
  const body = runs.map((run, number) => {
    const cell = row.cells[number];
    const notes = cell === null ? [run.unsupported[row.name] ? 'unsupported' : 'not run'] : Object.entries(cell.notes).map(([what, times]) => `${count(times)} ${what}`);
    return h('tr', {}, h('th', { scope: 'row' }, named(run.name), ' ', notes.map((note) => tag(note))), measures.map(([, value, format]) => h('td', { class: 'number' }, cell === null ? NONE : format(value(cell)))));
  });
  return scrolling('Scores of this task', h('table', {}, h('caption', {}, 'This task in every run'), h('thead', {}, head), h('tbody', {}, body)));
}

function queryColumns(task, row, measure) {
  const [, value, format, first] = queryMeasures[measure];
  const titleOf = (one) => task.items?.texts[one] || (task.items?.media[one] ? '' : task.ids[one]);
  const columns = [
    { key: 'id', label: 'Query', className: 'name', value: (one) => one, cell: (one) => named(shortened(task.ids[one], 80), /(?<=[_/-])/) },
    { key: 'text', label: 'Text', className: 'query', value: (one) => titleOf(one).toLowerCase(), cell: (one) => [
      glimpse(task, one), said(shortened(titleOf(one), 160)), ' ', task.items?.media[one] ? tag(mediaText(row, task.items.media[one])) : null,
      bit('helped')(task, one) ? tag('reasoning helped', 'up') : null, bit('hurt')(task, one) ? tag('reasoning hurt', 'down') : null,
    ] },
  ];
  if (task.difficulty) columns.push({ key: 'difficulty', label: 'Label', className: 'minor', value: (one) => task.difficulty[one], cell: (one) => task.difficulty[one] ?? NONE });
  runs.forEach((run, number) => {
    const mine = task.runs[number];
    columns.push({
      key: `run-${number}`, label: run.name, numeric: true, run: true, first,
      value: (one) => (mine === null ? null : value(mine, one)),
      cell: (one) => (mine === null || mine.score[one] === null ? NONE : [format(value(mine, one)), h('div', { class: 'small quiet' }, mine.reasoned[one] ? 'reasoned' : 'direct', mine.truncated[one] ? ', truncated' : '', mine.tied[one] ? ', tie' : '')]),
    });
  });
  return columns;
}

function glimpse(task, one) {
  const position = task.thumbnails?.queries[one]?.[0];
  return position === undefined ? null : h('img', { src: task.thumbnails.uris[position], alt: '', class: 'glimpse' });
}

const mediaText = (row, number) => (number > 1 ? `${number} ${row.modality === 'video' ? 'frames' : 'images'}` : '1 image');

// ---- one query

function queryDetail(task, row, one) {
  const { items } = task;
  const instruction = items?.instructions[one];
  const ask = h('div', { class: 'ask' },
    h('p', { class: 'small quiet' }, 'Query ', said(task.ids[one])),
    instruction ? said(instruction, 'p', { class: 'said quiet' }) : null,
    items?.texts[one] ? expandable(items.texts[one], '') : null,
    pictures(task.thumbnails?.queries[one], task, 'query'), sound(task.thumbnails?.query_sounds[one], task),
    items?.media[one] && !task.thumbnails?.queries[one] ? h('p', { class: 'small quiet' }, `${mediaText(row, items.media[one])}, not on this page`) : null);
  const cards = runs.map((run, number) => runCard(task, row, one, run, task.runs[number]));
  return h('div', { class: 'inside' }, ask, h('div', { class: 'side-by-side' }, cards), relevantBeyond(task, row, one));
}

function runCard(task, row, one, run, mine) {
  const card = h('div', { class: 'card' }, said(run.name, 'h3'));
  if (mine === null || mine.score[one] === null) {
    card.append(h('p', { class: 'quiet' }, run.unsupported[row.name] ? 'Unsupported by the model.' : 'This run lacks the query.'));
    return card;
  }
  const facts = [
    ['First relevant', [rankText(mine.rank[one]), ` of ${count(mine.ranked[one])}`]],
    [row.metric, percent(mine.score[one])],
    ['Path', [mine.reasoned[one] ? 'reasoned' : 'direct', mine.gate[one] === null ? '' : `, gate ${mine.gate[one].toFixed(3)}`]],
    mine.reasoned[one] ? ['Tokens', [count(mine.reasoning_tokens[one]), mine.truncated[one] ? [' ', tag('truncated', 'warn')] : '']] : null,
    ['Latency', `${milliseconds(mine.latency_seconds[one])} ms`],
    mine.tied[one] ? ['Ties', `${count(mine.tied[one])} among the first places`] : null,
  ];
  card.append(h('dl', { class: 'small' }, facts.filter(Boolean).map(([label, value]) => [h('dt', {}, label), h('dd', {}, value)])));
  const rationale = rationaleOf(task, mine, one);
  if (rationale !== null) card.append(h('h4', {}, mine.reasoned[one] ? 'Rationale' : 'Read off its pictures'), expandable(rationale, 'rationale'));
  card.append(h('h4', {}, 'First places'), h('ol', { class: 'places' }, mine.top[one].map((candidate, place) => candidateLine(task, row, candidate, String(place + 1), task.relevant[one].includes(candidate), mine.top_scores[one][place]))));
  return card;
}

function candidateLine(task, row, candidate, place, relevant, score) {
  const text = task.candidates.texts?.[candidate] ?? null;
  const media = task.candidates.media?.[candidate] ?? 0;
  const images = task.thumbnails?.candidates[candidate];
  return h('li', { class: relevant ? 'relevant' : '' }, h('span', { class: 'quiet' }, place),
    h('div', {}, text === null && media ? fileName(task.candidates.ids[candidate]) : expandable(text ?? task.candidates.ids[candidate], ''), pictures(images, task, 'candidate'), sound(task.thumbnails?.candidate_sounds[candidate], task),
      media > 1 || (media && !images) ? h('span', { class: 'small quiet' }, mediaText(row, media), ' ') : null,
      relevant ? tag('✓ relevant', 'up') : null),
    h('span', { class: 'small' }, score === null ? '' : score.toFixed(4)));
}

/** An id that is a path of pictures: its last part will do. */
function fileName(id) {
  const last = id.split('/').at(-1) || id;
  return said(last === id ? id : `…/${last}`, 'div', { class: 'said small quiet', title: plain(id) });
}

/** Relevant candidates that no run has among its first places. */
function relevantBeyond(task, row, one) {
  const top = new Set(task.runs.flatMap((run) => run?.top[one] ?? []));
  const others = task.relevant[one].filter((candidate) => !top.has(candidate));
  if (!others.length) return null;
  const hidden = task.num_relevant[one] - task.relevant[one].length;
  return h('div', { class: 'card' }, h('h3', {}, 'Relevant, but in no run among the first places'),
    h('ol', { class: 'places' }, others.map((candidate) => candidateLine(task, row, candidate, '', true, null))),
    hidden > 0 ? h('p', { class: 'small quiet' }, `and ${count(hidden)} more`) : null);
}

/** A sound by its name, its part and its length; to be played if the page holds its file. */
function sound(shown, task) {
  if (!shown) return null;
  const part = shown.end === null ? '' : `, ${shown.start} to ${shown.end} s`;
  const length = shown.seconds === null ? '' : ` (${shown.seconds.toFixed(1)} s)`;
  const source = shown.uri === null ? null : task.thumbnails.uris[shown.uri] + (part ? `#t=${shown.start},${shown.end}` : '');
  return h('div', { class: 'small quiet' }, source && h('audio', { src: source, controls: '', preload: 'none' }), said(shown.name), `${part}${length}`);
}

function pictures(positions, task, what) {
  if (!positions?.length) return null;
  return h('div', { class: 'thumbnails' }, positions.map((position, place) => h('img', { src: task.thumbnails.uris[position], alt: `${what}, picture ${place + 1} of ${positions.length}`, loading: 'lazy' })));
}

// ---- where we are

let left = null;

function route() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const number = summary.tasks.findIndex((task) => task.name === wanted.get('task'));
  if (number >= 0) {
    if (!document.getElementById('overview').hidden) left = { task: wanted.get('task'), scroll: scrollY };
    showTask(number, wanted.get('query'));
    return;
  }
  document.getElementById('task').hidden = true;
  document.getElementById('task').replaceChildren();
  document.getElementById('overview').hidden = false;
  if (left === null) return;
  scrollTo(0, left.scroll);
  [...document.querySelectorAll('#tasks a')].find((link) => link.textContent === left.task)?.focus({ preventScroll: true });
  left = null;
}

showSummary();
addEventListener('hashchange', route);
route();
