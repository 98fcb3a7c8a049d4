// What the other parts share: the language, numbers, elements. The page works without scripts.
'use strict';
const root = document.documentElement;
const byId = id => document.getElementById(id);
// The path before the counter's routes; a page without numbers has none.
const here = document.body.dataset.here;
const words = {
  en: {
    visits: n => (n === 1 ? 'visit' : 'visits'),
    soFar: 'so far',
    table: 'Show as a table',
    columns: ['Time', 'Visits'],
    zone: name => `Times are in ${name}, days and months in UTC.`,
    // As words.rs has them.
    figures: {
      hour: ['Visits per hour', 'on'],
      day: ['Visits per day', 'on'],
      month: ['Visits per month', 'in'],
    },
    up: 'up',
    down: 'down',
    cacheNote: 'Counted in Redis, in memory.',
    unavailable: 'Unavailable',
    cacheDown: 'Your visit is in the total; this number will be back.',
    live: 'live',
    lost: 'reconnecting',
    use: 'Use this counter',
    copy: 'Copy',
    copied: 'Copied',
    embed: {
      image: 'An image that counts, on a page',
      markdown: 'In a README',
      beacon: 'A script that counts and shows nothing',
      json: 'A script that counts and shows the total',
      badge: 'A badge that does not count',
      shields: 'The same, drawn by shields.io',
    },
  },
  'pt-BR': {
    visits: n => (n === 1 ? 'visita' : 'visitas'),
    soFar: 'até agora',
    table: 'Ver como tabela',
    columns: ['Horário', 'Visitas'],
    zone: name => `Horários em ${name}; dias e meses em UTC.`,
    figures: {
      hour: ['Visitas por hora', 'em'],
      day: ['Visitas por dia', 'em'],
      month: ['Visitas por mês', 'em'],
    },
    up: 'no ar',
    down: 'fora do ar',
    cacheNote: 'Contadas na memória do Redis.',
    unavailable: 'Indisponível',
    cacheDown: 'A sua visita já está no total; este número volta sozinho.',
    live: 'ao vivo',
    lost: 'reconectando',
    use: 'Use este contador',
    copy: 'Copiar',
    copied: 'Copiado',
    embed: {
      image: 'Imagem que conta, em uma página',
      markdown: 'Em um README',
      beacon: 'Script que conta e não mostra nada',
      json: 'Script que conta e mostra o total',
      badge: 'Selo que não conta',
      shields: 'O mesmo, desenhado pelo shields.io',
    },
  },
}[root.lang];
const shown = number => number.toLocaleString(root.lang);

// Sets a text where it differs, so that a reader keeps its place.
const say = (element, text) => {
  if (element && element.textContent !== text) element.textContent = text;
};

const make = (name, properties, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};
