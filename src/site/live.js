// Follows the numbers and the charts over /events, or waits until there are any.
{
  const size = n => n < 1e6 ? 'n6' : n < 1e9 ? 'n9' : n < 1e12 ? 'n12' : 'n19';
  const number = (element, value) => {
    element.value = value;
    say(element, shown(value));
  };

  const state = (id, up) => {
    const item = byId(id);
    if (!item) return;
    item.classList.toggle('down', !up);
    say(item.querySelector('b'), up ? words.up : words.down);
  };

  // The second tile: its name, and a number with a note or why there is none. The page has one.
  const tile = document.querySelector('dl')?.lastElementChild;
  const part = (id, ...children) =>
    byId(id) ?? make('dd', { id, className: 'note' }, ...children);
  const cacheNote = part('cache-note', words.cacheNote);
  const cacheDown = part('cache-down',
    make('b', { className: 'unknown', textContent: words.unavailable }), words.cacheDown);

  const numbers = (total, cache) => {
    number(byId('total'), total);
    byId('total').closest('dl').className = size(Math.max(total, Math.abs(cache)));
    const none = cache === null;
    if (none !== cacheDown.isConnected) {
      tile.replaceChildren(tile.firstElementChild,
        ...(none ? [cacheDown] : [make('dd', {}, make('data', { id: 'cache' })), cacheNote]));
    }
    if (!none) number(byId('cache'), cache);
  };

  const mark = make('p', { id: 'live', className: 'live', hidden: true });
  let live = false;
  const show = ({ up, data }) => {
    say(mark, up ? words.live : words.lost);
    mark.classList.toggle('lost', !up);
    mark.hidden = false;
    if (up && !live) chart.renew();
    live = up;
    if (!data) return;
    const event = JSON.parse(data);
    state('ledger-state', event.ledger);
    state('counter-state', event.counter);
    if (event.total === undefined) return;
    numbers(event.total, event.cache);
    if (event.day) say(byId('today'), shown(event.day[2]));
    if (event.week !== undefined) say(byId('week'), shown(event.week));
    for (const name of chart.PERIODS) if (event[name]) chart.follow(name, event[name]);
  };

  // A browser has six connections to a server, and each stream takes one. So one tab that is seen
  // listens for all, and a hidden one lets go.
  const BEAT_MS = 2000, FIRST_MS = 300, LONGEST_MS = 30_000;
  const me = Math.random();
  const tabs = new BroadcastChannel('visitas ' + here);
  let leads = false, events = null, tries = 0, retry, silence, last = null;

  const tell = event => {
    last = { ...last, ...event };
    show(event);
    tabs.postMessage({ me, event });
  };

  // An EventSource gives up at any status but 200, as of a proxy whose server restarts.
  const connect = () => {
    clearTimeout(retry);
    events?.close();
    events = new EventSource(here + '/events');
    events.onopen = () => { tries = 0; tell({ up: true }); };
    events.onmessage = ({ data }) => tell({ up: true, data });
    events.onerror = () => {
      events.close();
      tell({ up: false });
      const wait = Math.min(LONGEST_MS, 1000 * 2 ** tries++);
      retry = setTimeout(connect, wait * (0.5 + Math.random() / 2));
    };
  };

  const stop = () => {
    clearTimeout(silence);
    clearTimeout(retry);
    events?.close();
    events = null;
    if (leads) tabs.postMessage({ me, bye: true });
    leads = false;
  };
  const lead = () => { leads = true; tries = 0; connect(); };
  // Leads unless another tab is heard within that time.
  const wait = ms => {
    clearTimeout(silence);
    if (!document.hidden) silence = setTimeout(lead, ms * (1 + Math.random() / 2));
  };
  const begin = () => {
    if (document.hidden || leads) return;
    tabs.postMessage({ me, hello: true });
    wait(FIRST_MS);
  };

  tabs.onmessage = ({ data }) => {
    if (data.hello) {
      if (leads) tabs.postMessage({ me, event: last ?? undefined });
    } else if (data.bye) {
      wait(FIRST_MS);
    } else if (leads) {
      // Of two that lead, one goes on.
      if (data.me < me) { leads = false; stop(); wait(3 * BEAT_MS); }
    } else {
      wait(3 * BEAT_MS);
      if (data.event) show(data.event);
    }
  };

  if (here !== undefined) {
    document.querySelector('header').append(mark);
    setInterval(() => leads && tabs.postMessage({ me }), BEAT_MS);
    document.addEventListener('visibilitychange', () => document.hidden ? stop() : begin());
    addEventListener('pagehide', stop);
    addEventListener('pageshow', ({ persisted }) => persisted && begin());
    addEventListener('online', () => leads && connect());
    begin();
  }

  // On a page without numbers: asks now and then whether there are some, which is no visit, and
  // comes back with one.
  const counter = byId('retry');
  if (counter) {
    const seconds = Number(counter.textContent);
    let left = seconds;
    setInterval(async () => {
      if (document.hidden || left < 0) return;
      say(counter, String(Math.max(--left, 0)));
      if (left > 0) return;
      left = -1;
      const answer = await fetch(location.href, { method: 'HEAD', cache: 'no-store' }).catch(() => null);
      if (answer?.ok) { location.reload(); return; }
      left = seconds;
      say(counter, String(left));
    }, 1000);
  }
}
