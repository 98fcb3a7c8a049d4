// The charts: loaded as they are chosen, drawn anew as visits come, read bar by bar, and shown as a
// table.
const chart = (() => {
  const HEIGHT = 100, LOWEST = 2; // as chart.rs draws
  const PERIODS = ['minute', 'hour', 'day', 'month'];
  const section = document.querySelector('section');
  const series = {};
  let chosen = 'minute';

  const form = options => {
    const format = new Intl.DateTimeFormat(root.lang, { hourCycle: 'h23', ...options });
    return start => format.format(start * 1000);
  };
  const times = {
    minute: form({ hour: '2-digit', minute: '2-digit' }),
    hour: form({ day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' }),
    day: form({ day: 'numeric', month: 'short', year: 'numeric', timeZone: 'UTC' }),
    month: form({ month: 'short', year: 'numeric', timeZone: 'UTC' }),
  };

  const top = most => {
    let unit = 1;
    while (most > unit * 10) unit *= 10;
    const steps = Math.max(Math.ceil(most / unit), 1);
    return (steps + (unit === 1 || unit >= 1e6 ? steps % 2 : 0)) * unit;
  };
  const short = n => {
    const [million, billion] = root.lang === 'en' ? ['M', 'B'] : ['\u00a0mi', '\u00a0bi'];
    if (n < 1e6) return shown(n);
    return n < 1e9 ? shown(n / 1e6) + million : shown(n / 1e9) + billion;
  };

  const time = (element, name, start) => {
    element.dateTime = new Date(start * 1000).toISOString().slice(0, 19) + 'Z';
    say(element, times[name](start));
  };

  const caption = name => byId(name).querySelector('figcaption').firstChild;

  // The page comes with the minutes. Another period's figure is like theirs, and empty until its
  // numbers are loaded.
  const add = name => {
    const minute = byId('minute'), figure = minute.cloneNode(true);
    const [title, at] = words.figures[name];
    figure.id = name;
    figure.className = 'empty';
    figure.querySelector('figcaption').firstChild.data = title + ' ';
    figure.querySelector('.most').nextSibling.data = ` ${at} `;
    for (const text of figure.querySelectorAll('time, .y :not(:last-child)')) say(text, '\u00a0');
    for (const path of figure.querySelectorAll('path')) path.setAttribute('d', '');
    minute.before(figure);
  };

  const draw = name => {
    const figure = byId(name), { starts, visits } = series[name];
    const most = Math.max(...visits), high = top(most), last = visits.length - 1;
    const height = n => Math.max(LOWEST, Math.floor((n * HEIGHT) / high));
    const bar = (n, i) => n ? `M${i}-${height(n)}V0` : '';
    const [past, now] = figure.querySelectorAll('path');
    figure.className = '';
    figure.querySelector('svg').setAttribute('viewBox', `-.5 -${HEIGHT} ${visits.length} ${HEIGHT}`);
    past.setAttribute('d', visits.slice(0, -1).map(bar).join(''));
    now.setAttribute('d', bar(visits[last], last));
    say(figure.querySelector('.sum'), shown(visits.reduce((sum, n) => sum + n, 0)));
    say(figure.querySelector('.most'), shown(most));
    figure.querySelector('.peak').hidden = !most;
    const [upper, middle] = figure.querySelectorAll('.y span');
    say(upper, short(high));
    say(middle, short(high / 2));
    const [peak, from, to] = figure.querySelectorAll('time');
    time(peak, name, starts[visits.lastIndexOf(most)]);
    time(from, name, starts[0]);
    time(to, name, starts[last]);
    if (name !== chosen) return;
    readers[name].renew();
    if (table.open || !body.rows.length) fill();
  };

  const path = name => `${here}/history?by=${name}`;
  const take = (name, { points }) => {
    series[name] = {
      starts: points.map(point => Date.parse(point.start) / 1000),
      visits: points.map(point => point.visits),
    };
    draw(name);
  };
  const load = async name => {
    const answer = await fetch(path(name)).catch(() => null);
    if (answer?.ok) take(name, await answer.json());
    else series[name] ??= null; // asked for again once there are events
  };
  // Printing waits for nothing else.
  const loadNow = name => {
    const request = new XMLHttpRequest();
    request.open('GET', path(name), false);
    try {
      request.send();
      take(name, JSON.parse(request.responseText));
    } catch { /* It is printed without this one. */ }
  };

  // The newest two points of a period, as an event has them.
  const follow = (name, [start, before, now]) => {
    if (!series[name]) return;
    const { starts, visits } = series[name];
    const [last, length] = [starts.at(-1), starts.at(-1) - starts.at(-2)];
    // A month may be three days longer than the one before.
    if (start < last || start > last + length * 1.2) { load(name); return; }
    if (start > last) {
      starts.shift(); starts.push(start);
      visits.shift(); visits.push(0);
    }
    visits.splice(-2, 2, before, now);
    draw(name);
  };

  // Tells the value and the time of a bar: under the pointer or a finger, or by arrow keys.
  const reader = name => {
    const bars = byId(name).querySelector('.bars');
    const mark = make('span', { className: 'mark', hidden: true });
    const tip = make('p', { className: 'tip', hidden: true });
    tip.setAttribute('aria-hidden', 'true');
    bars.append(mark);
    bars.after(tip);
    bars.tabIndex = 0;
    bars.setAttribute('role', 'slider');
    bars.setAttribute('aria-label', caption(name).data.trim());
    bars.setAttribute('aria-valuemin', 0);
    bars.setAttribute('aria-valuenow', 0);
    let at = null;
    const tell = index => {
      const { starts, visits } = series[name] ?? { visits: [] };
      const last = visits.length - 1;
      // Told once there are numbers.
      if (last < 0) { at = index; return; }
      const open = index !== null;
      at = open ? Math.min(Math.max(index, 0), last) : null;
      mark.hidden = tip.hidden = !open;
      const bar = at ?? last, n = visits[bar];
      const text = `${shown(n)} ${words.visits(n)}, ${times[name](starts[bar])}` +
        (bar === last ? ` (${words.soFar})` : '');
      bars.setAttribute('aria-valuemax', last);
      bars.setAttribute('aria-valuenow', bar);
      bars.setAttribute('aria-valuetext', text);
      say(tip, text);
      const middle = (bar + 0.5) / visits.length;
      mark.style.left = `${middle * 100}%`;
      mark.style.width = `${100 / visits.length}%`;
      // Of the plot's width, so that a long text fits on a narrow page.
      const { offsetLeft, offsetWidth, parentElement } = bars;
      const left = ((offsetLeft + middle * offsetWidth) / parentElement.offsetWidth) * 100;
      tip.style.left = `${left}%`;
      tip.style.transform = `translateX(-${left}%)`;
    };
    const under = event => {
      if (!series[name]) return;
      const { left, width } = bars.getBoundingClientRect();
      tell(Math.floor(((event.clientX - left) / width) * series[name].visits.length));
    };
    bars.onpointermove = bars.onpointerdown = under;
    bars.onpointerleave = event => {
      if (event.pointerType === 'mouse' && document.activeElement !== bars) tell(null);
    };
    bars.onfocus = () => at ?? tell(Infinity);
    bars.onblur = () => tell(null);
    bars.onkeydown = event => {
      const last = series[name]?.visits.length - 1, bar = at ?? last;
      const to = {
        ArrowLeft: bar - 1, ArrowDown: bar - 1, ArrowRight: bar + 1, ArrowUp: bar + 1,
        PageDown: bar - 10, PageUp: bar + 10, Home: 0, End: last, Escape: null,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      tell(to);
    };
    return { renew: () => tell(at) };
  };

  const body = make('tbody');
  const head = make('tr', {}, ...(words?.columns ?? []).map(name =>
    make('th', { scope: 'col', textContent: name })));
  const heading = make('caption');
  const table = make('details', { className: 'table' },
    make('summary', { textContent: words?.table }),
    make('div', { className: 'rows', tabIndex: 0, role: 'region', ariaLabel: words?.table },
      make('table', {}, heading, make('thead', {}, head), body)));
  table.ontoggle = () => fill();

  // The chosen period as a table, the newest first.
  const fill = () => {
    const { starts, visits } = series[chosen] ?? { starts: [], visits: [] };
    say(heading, caption(chosen).data.trim());
    while (body.rows.length > starts.length) body.rows[0].remove();
    while (body.rows.length < starts.length)
      body.append(make('tr', {}, make('th', { scope: 'row' }), make('td')));
    [...body.rows].forEach(({ cells: [when, count] }, row) => {
      const at = starts.length - 1 - row;
      say(when, times[chosen](starts[at]) + (row ? '' : ` (${words.soFar})`));
      say(count, shown(visits[at]));
    });
  };

  const choose = name => {
    chosen = name;
    section.dataset.by = name;
    for (const link of section.querySelectorAll('nav a')) {
      if (link.hash === '#' + name) link.setAttribute('aria-current', 'true');
      else link.removeAttribute('aria-current');
    }
    for (const link of section.querySelectorAll('.get a'))
      link.search = `?by=${name}&format=${link.textContent.toLowerCase()}`;
    body.replaceChildren();
    if (series[name]) draw(name);
    else load(name);
  };

  // A choice is no step: it leaves the page where it is, and Back leads away from it.
  const named = () => PERIODS.find(name => '#' + name === location.hash) ?? 'minute';
  const readers = {};
  if (section && byId('minute')) {
    for (const element of byId('minute').querySelectorAll('time'))
      time(element, 'minute', Date.parse(element.dateTime) / 1000);
    Object.keys(words.figures).forEach(add);
    for (const name of PERIODS) readers[name] = reader(name);
    // Without this script they lead to a page of their own.
    for (const link of section.querySelectorAll('nav a')) link.href = link.hash;
    section.querySelector('.get').before(table);
    section.querySelector('nav').onclick = event => {
      const link = event.target.closest('a');
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      history.replaceState(history.state, '', link.hash);
      choose(named());
    };
    addEventListener('hashchange', () => choose(named()));
    addEventListener('beforeprint', () => PERIODS.filter(name => !series[name]).forEach(loadNow));
    choose(named());
    const zone = new Intl.DateTimeFormat(root.lang, { timeZoneName: 'short' })
      .formatToParts().find(part => part.type === 'timeZoneName').value;
    if (zone !== 'UTC') say(byId('zone'), words.zone(zone));
  }
  return { PERIODS, follow, renew: () => Object.keys(series).forEach(load) };
})();
