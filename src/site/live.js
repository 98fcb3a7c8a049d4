// Follows the numbers and the charts over /events. The page works without it.
'use strict';
(() => {
  const PITCH = 10, HEIGHT = 100, HIGHEST = 96, LOWEST = 2; // as chart.rs draws
  const root = document.documentElement, byId = id => document.getElementById(id);
  const base = root.dataset.base;
  const shown = number => number.toLocaleString(root.lang);
  const charts = {};

  const load = async name => {
    const answer = await fetch(base + '/history?by=' + name);
    if (!answer.ok) return;
    const { step_seconds, points } = await answer.json();
    const start = Date.parse(points[0].start) / 1000;
    charts[name] = { step: step_seconds, start, visits: points.map(p => p.visits) };
    draw(name);
  };

  const time = (element, start, name, zone) => {
    const full = new Date(start * 1000).toISOString();
    const [year, month, day] = full.slice(0, 10).split('-');
    const date = root.lang === 'en' ? full.slice(0, 10) : `${day}/${month}/${year}`;
    element.dateTime = full.slice(0, 19) + 'Z';
    const words = [name !== 'minute' && date, name !== 'day' && full.slice(11, 16)];
    element.textContent = words.filter(Boolean).join(' ') + zone;
  };

  const draw = name => {
    const { step, start, visits } = charts[name], figure = byId(name);
    if (!figure) return;
    const most = Math.max(...visits);
    const height = n => Math.max(LOWEST, Math.floor(n * HIGHEST / most));
    const bar = (n, i) => n && `M${i * PITCH + PITCH / 2} ${HEIGHT - height(n)}V${HEIGHT}`;
    figure.querySelector('path').setAttribute('d', visits.map(bar).filter(Boolean).join(''));
    figure.querySelector('.sum').textContent = shown(visits.reduce((sum, n) => sum + n, 0));
    figure.querySelector('.most').textContent = shown(most);
    const [first, last] = figure.querySelectorAll('time');
    time(first, start, name, '');
    time(last, start + step * (visits.length - 1), name, ' UTC');
  };

  const follow = (name, [start, before, now]) => {
    const chart = charts[name];
    if (!chart) return;
    const { step, visits } = chart;
    const ahead = (start - chart.start) / step - visits.length + 1;
    if (ahead < 0 || ahead > 1) { load(name); return; }
    if (ahead === 1) { visits.shift(); visits.push(0); chart.start += step; }
    visits.splice(-2, 2, before, now);
    draw(name);
  };

  const number = (id, value) => {
    const element = byId(id);
    if (!element || value === null) return;
    element.value = value;
    element.textContent = shown(value);
  };

  const state = (id, up) => {
    const item = byId(id);
    if (!item) return;
    const word = item.querySelector('b');
    word.dataset.up ??= item.classList.contains('down') ? word.dataset.down : word.textContent;
    item.classList.toggle('down', !up);
    word.textContent = up ? word.dataset.up : word.dataset.down;
  };

  let live = false;
  const show = ({ up, data }) => {
    if (up !== live) {
      live = up;
      byId('live').hidden = !up;
      if (up) Object.keys({ minute: 0, hour: 0, day: 0 }).forEach(load);
    }
    if (!data) return;
    const event = JSON.parse(data);
    state('ledger-state', event.ledger);
    state('counter-state', event.counter);
    if (event.total === undefined) return;
    number('total', event.total);
    number('cache', event.cache);
    for (const name of ['minute', 'hour', 'day']) if (event[name]) follow(name, event[name]);
  };

  const listen = tell => {
    const events = new EventSource(base + '/events');
    events.onopen = () => tell({ up: true });
    events.onerror = () => tell({ up: false });
    events.onmessage = ({ data }) => tell({ up: true, data });
    return events;
  };

  // A browser has six connections to a server, and each stream takes one: the tab with the lock
  // listens for all.
  if (navigator.locks) {
    const tabs = new BroadcastChannel('visitas' + base);
    let last = null;
    tabs.onmessage = ({ data }) => data !== 'hello' && show(data);
    tabs.postMessage('hello');
    navigator.locks.request('visitas' + base, () => {
      tabs.onmessage = ({ data }) => data === 'hello' && last && tabs.postMessage(last);
      listen(event => { last = { ...last, ...event }; show(event); tabs.postMessage(event); });
      return new Promise(() => {});
    });
  } else {
    // Without locks (a page without TLS) only a visible tab listens.
    let events = null;
    const seen = () => {
      events?.close();
      events = document.hidden ? null : listen(show);
    };
    document.addEventListener('visibilitychange', seen);
    seen();
  }
})();
