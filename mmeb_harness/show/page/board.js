// ---- a leaderboard

const tables = summary.tables;
const NAME_JOINTS = /(?<=[_/-])/;

function showBoards() {
  const models = new Set(tables.flatMap((table) => table.rows.map((row) => row.name)));
  document.getElementById('subtitle').append(`${count(models.size)} ${models.size === 1 ? 'model' : 'models'}${tables.length > 1 ? ` · ${count(tables.length)} tables` : ''}`);
  document.getElementById('boards').append(...tables.map(section));
  document.getElementById('footer').append(`Written ${summary.written} by mmeb-harness. Bold: the best of a column by the digits shown. A ▸ in a heading shows what that mean is over.`);
  if (tables.length < 2) return;
  const contents = document.getElementById('contents');
  contents.hidden = false;
  contents.append(h('ul', {}, tables.map((table, number) => h('li', {}, h('a', { href: `#table-${number + 1}` }, said(table.title))))));
}

function section(table, number) {
  const id = `table-${number + 1}`;
  return h('section', { id, 'aria-labelledby': `${id}-title` },
    said(table.title, 'h2', { id: `${id}-title`, tabindex: '-1' }),
    table.warning ? h('ul', { class: 'warnings' }, h('li', {}, table.warning)) : null,
    ...board(table),
    sources(table),
    h('ul', { class: 'notes' }, table.notes.map((note) => said(note, 'li'))));
}

/** Tools, and the table that they act on. */
function board(table) {
  const state = { words: '', origin: '', models: new Set(table.rows), group: '', open: new Set(), costs: true, data: false };
  const origins = [...new Set(table.rows.map((row) => row.origin))];
  const sorted = new SortedTable({ caption: `Scores in %: ${table.title}`, columns: [], keyOf: (row) => row.name });
  const filter = () => sorted.setRows(table.rows.filter((row) => fits(table, row, state)));
  const arrange = () => {
    sorted.setColumns(shownColumns(table, state, toggle, origins.length > 1));
    for (const chip of chips.children) chip.refresh();
  };
  const toggle = (key) => {
    state.open[state.open.has(key) ? 'delete' : 'add'](key);
    arrange();
    sorted.head.querySelector(`th[data-key="${CSS.escape(key)}"] .fold`)?.focus();
  };
  const groups = table.columns.filter((column) => column.block === 'groups');
  const tools = h('div', { class: 'tools' },
    search('Text', (value) => { state.words = value.trim().toLowerCase(); filter(); }),
    origins.length > 1 ? choice('Scores', [['', 'all'], ...origins.map((one) => [one, ORIGINS[one]])], (value) => { state.origin = value; filter(); }) : null,
    groups.length ? choice('Group', [['', 'all'], ...groups.map((column) => [column.key, column.title])], (value) => { state.group = value; arrange(); }) : null);
  const chips = columnChips(table, state, () => arrange());
  const models = modelBoxes(table, state, filter);
  arrange();
  return [tools, chips, models, sorted.element];
}

const ORIGINS = { run: 'own runs', imported: 'imported', published: 'published' };

/** Whether a row is shown; words are looked for in all that it says. */
function fits(table, row, { words, origin, models }) {
  const texts = [row.name, row.unranked, row.ties, row.origin, row.source, ...table.columns.flatMap((column, place) => (column.kind === 'text' ? [row.cells[place].text] : []))];
  return models.has(row) && (!origin || row.origin === origin) && (!words || texts.join('\n').toLowerCase().includes(words));
}

/** Which of the foldable columns are shown, all at once. */
function columnChips(table, state, arrange) {
  const parents = (block) => new Set(table.columns.filter((column) => column.block === block && column.part_of).map((column) => column.part_of));
  const chip = (label, pressed, press) => {
    const button = h('button', { type: 'button', class: 'chip', 'aria-pressed': String(pressed()), click: () => { press(!pressed()); arrange(); } }, label);
    button.refresh = () => button.setAttribute('aria-pressed', String(pressed()));
    return button;
  };
  const all = (keys) => () => [...keys].every((key) => state.open.has(key));
  const set = (keys) => (open) => keys.forEach((key) => state.open[open ? 'add' : 'delete'](key));
  const [groups, tasks] = [parents('groups'), parents('tasks')];
  const costs = costColumns(table).length;
  const texts = table.columns.filter((column) => column.kind === 'text').map((column) => column.title).join(', ');
  const chips = [
    groups.size ? chip('Groups', all(groups), set(groups)) : null,
    tasks.size ? chip('Tasks', all(new Set([...groups, ...tasks])), set(new Set([...groups, ...tasks]))) : null,
    costs ? chip('Size and cost', () => state.costs, (on) => { state.costs = on; }) : null,
    chip(texts[0].toUpperCase() + texts.slice(1), () => state.data, (on) => { state.data = on; }),
  ].filter(Boolean);
  return h('fieldset', { class: 'chips', 'aria-label': 'Columns' }, chips);
}

function modelBoxes(table, state, filter) {
  const title = h('summary');
  const boxes = table.rows.map((row) => {
    const box = h('input', { type: 'checkbox', change: () => { state.models[box.checked ? 'add' : 'delete'](row); show(); } });
    box.row = row;
    return box;
  });
  const show = () => {
    title.textContent = `Models: ${state.models.size === table.rows.length ? 'all' : count(state.models.size)} of ${count(table.rows.length)}`;
    for (const box of boxes) box.checked = state.models.has(box.row);
    filter();
  };
  const set = (rows) => () => { state.models = new Set(rows); show(); };
  show();
  return h('details', { class: 'models' }, title,
    h('fieldset', { class: 'boxes small', 'aria-label': 'Models' }, boxes.map((box) => h('label', {}, box, ' ', named(box.row.name, NAME_JOINTS)))),
    h('button', { type: 'button', class: 'button', click: set(table.rows) }, 'All'), ' ', h('button', { type: 'button', class: 'button', click: set([]) }, 'None'));
}

const costColumns = (table) => table.columns.filter((column, place) => column.block === 'about' && column.kind !== 'text' && table.rows.some((row) => row.cells[place].value !== null));

/** Columns of the table as it stands: what is folded away, or of another group than the chosen one, is left out. */
function shownColumns(table, state, toggle, mixed) {
  const fixed = [
    { key: 'model', label: 'Model', value: (row) => row.name.toLowerCase(), cell: (row) => [named(row.name, NAME_JOINTS), mixed ? [' ', tag(ORIGINS[row.origin])] : null, row.unranked ? h('div', { class: 'small quiet' }, 'not ranked: ', said(row.unranked)) : null] },
    { key: 'rank', label: 'Rank', numeric: true, value: (row) => row.rank, cell: (row) => count(row.rank) },
    { key: 'interval', label: 'Rank 95 %', numeric: true, value: (row) => row.rank, cell: (row) => (row.rank === null ? NONE : row.interval) },
  ];
  const ties = { key: 'ties', label: 'Ties', value: (row) => row.ties || null, cell: (row) => row.ties || NONE };
  const parts = (key) => table.columns.filter((column) => column.part_of === key);
  const scores = table.columns.filter((column) => column.kind === 'score');
  const withParts = (column) => [column, ...(state.open.has(column.key) ? parts(column.key).flatMap(withParts) : [])];
  const wanted = state.group
    ? scores.filter((column) => column === scores[0] || column.key === state.group || column.part_of === state.group)
    : scores.filter((column) => !column.part_of).flatMap(withParts);
  const about = [...(state.costs ? costColumns(table) : []), ...(state.data ? table.columns.filter((column) => column.kind === 'text') : [])];
  const fold = (column) => (parts(column.key).length && !state.group ? { open: state.open.has(column.key), label: `What ${plain(column.title)} is over`, toggle: () => toggle(column.key) } : null);
  const [overall, ...others] = [...wanted, ...about].map((column) => ofTable(table, column, fold(column)));
  return [...fixed, overall, ties, ...others];
}

function ofTable(table, column, fold) {
  const place = table.columns.indexOf(column);
  const cell = (row) => row.cells[place];
  const isText = column.kind === 'text';
  return {
    key: column.key, label: column.title, numeric: !isText, fold, className: column.part_of ? 'part' : '',
    first: isText || column.kind === 'seconds' ? 'ascending' : 'descending',
    value: (row) => (isText ? cell(row).value?.toLowerCase() ?? null : cell(row).value),
    cell: (row) => [h(cell(row).best ? 'strong' : 'span', {}, cell(row).value === null && cell(row).text === '-' ? NONE : isText ? said(cell(row).text) : cell(row).text), column === table.columns[0] && cell(row).value !== null ? bar(cell(row).value) : null],
  };
}

function sources(table) {
  const cards = table.rows.map((row) => {
    const facts = { Scores: ORIGINS[row.origin], From: row.source };
    table.columns.forEach((column, place) => { if (column.block === 'about' && row.cells[place].value !== null) facts[column.title] = row.cells[place].text; });
    return h('div', {}, said(row.name, 'h3'), h('dl', {}, Object.entries(facts).map(([label, value]) => [h('dt', {}, label), said(value, 'dd')])));
  });
  return h('details', {}, h('summary', {}, 'Where the scores come from'), h('div', { class: 'profiles small' }, cards));
}

showBoards();
