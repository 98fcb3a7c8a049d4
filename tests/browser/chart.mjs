// The charts: drawn and read, by pointer, finger, keyboard and screen reader.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import {
  PERIODS, PHONE, isReady, open, overflow, ready, screenshot, serve, total, until, url, visit,
} from './support.mjs';

const digits = text => Number(text.replaceAll(/\D/g, ''));
const points = by => fetch(`${url}history?by=${by}`).then(answer => answer.json())
  .then(({ points }) => points);

export default {
  async 'numbers and chart follow live, and the script draws what the server draws'() {
    const { page, wrong } = await open();
    await ready(page);
    const sum = () => page.locator('#minute .sum').textContent().then(digits);
    const fact = id => page.locator('#' + id).textContent().then(digits);
    const [before, sumBefore, today, week] =
      [await total(page), await sum(), await fact('today'), await fact('week')];
    let last;
    for (let n = 0; n < 5; n++) last = await visit();
    await page.waitForFunction(
      wanted => Number(document.getElementById('total').value) >= wanted,
      last.total,
    );
    assert.equal(await total(page), before + 5);
    await until('the chart follows', async () => (await sum()) > sumBefore);
    await until('today and the week follow', async () =>
      (await fact('today')) >= today + 5 && (await fact('week')) >= week + 5);
    assert.equal(await page.evaluate(() => performance.getEntriesByType('navigation').length), 1);
    for (const name of PERIODS) {
      await page.locator(`nav a[href="#${name}"]`).click();
      await until(`${name} is loaded`, async () =>
        (await page.locator('tbody tr').count()) === (await points(name)).length);
    }
    const same = async () => {
      const [live, served] = await page.evaluate(shapesOf, PERIODS);
      return JSON.stringify(live) === JSON.stringify(served);
    };
    await until('both draw the same', async () => {
      // The page learns by a visit that a minute has begun.
      await visit();
      for (let tries = 0; tries < 30; tries++) if (await same()) return true;
      return false;
    });
    assert.deepEqual(wrong, []);
  },

  async 'the axis has values, and the running minute looks unfinished'() {
    const { page } = await open({ javaScriptEnabled: false });
    assert.deepEqual(await page.locator('figure').evaluateAll(all => all.map(one => one.id)),
      ['minute'], 'the page of a visit comes with the minutes alone');
    await page.goto(url + 'history?format=html');
    for (const name of PERIODS) {
      const values = await page.locator(`#${name} .y span`).allTextContents();
      const [high, half, zero] = values.map(digits);
      const most = digits(await page.locator(`#${name} .most`).textContent());
      assert.ok(high >= most && half * 2 === high && zero === 0, `${name}: ${values}`);
      assert.ok(high <= most * 2 + 2, `${name}: the axis is too long: ${values} for ${most}`);
      const [past, now] = await page.locator(`#${name} path`).evaluateAll(paths =>
        paths.map(path => getComputedStyle(path).strokeDasharray));
      assert.equal(past, 'none');
      assert.notEqual(now, 'none', 'the last bar is drawn like the others');
    }
  },

  async 'a bar tells its value and time on hover, on touch and by keyboard'() {
    const timezoneId = 'America/Sao_Paulo';
    const { page, wrong } = await open({ timezoneId });
    await ready(page);
    const bars = page.locator('#minute .bars'), tip = page.locator('#minute .tip');
    const expected = async index => {
      const { start, visits } = (await points('minute')).at(index);
      const at = new Date(start).toLocaleTimeString('pt-BR', {
        timeZone: timezoneId, hour: '2-digit', minute: '2-digit', hourCycle: 'h23',
      });
      return `${visits} ${visits === 1 ? 'visita' : 'visitas'}, ${at}`;
    };
    const tells = index => until(`bar ${index} is told`, async () =>
      (await tip.textContent()).startsWith(await expected(index)));
    const { x, y, width, height } = await bars.boundingBox();
    const centre = index => x + ((index + 0.5) / 60) * width;
    assert.ok(!(await tip.isVisible()));
    for (const index of [0, 20, 59]) {
      await page.mouse.move(centre(index), y + height / 2);
      await tells(index);
      const box = await tip.boundingBox();
      assert.ok(box.x >= x - 1 && box.x + box.width <= x + width + 1, 'the value is cut off');
    }
    await page.mouse.move(centre(20), y + height / 2);
    await screenshot(page, 'chart-hover');
    await page.mouse.move(x, y - 200);
    assert.ok(!(await tip.isVisible()), 'it stays when the pointer leaves');
    // The keyboard: the newest first, then by arrows.
    await bars.focus();
    await tells(-1);
    assert.match(await tip.textContent(), /até agora/);
    assert.equal(await bars.getAttribute('aria-valuetext'), await tip.textContent());
    await page.keyboard.press('ArrowLeft');
    await tells(-2);
    await screenshot(page, 'chart-focus');
    await page.keyboard.press('Home');
    await tells(0);
    await page.keyboard.press('Escape');
    assert.ok(!(await tip.isVisible()));
    assert.deepEqual(wrong, []);
    // A finger.
    const phone = await open({ viewport: PHONE, hasTouch: true, isMobile: true, timezoneId });
    await ready(phone.page);
    const touched = phone.page.locator('#minute .bars');
    await touched.scrollIntoViewIfNeeded();
    const box = await touched.boundingBox();
    await phone.page.touchscreen.tap(box.x + (10.5 / 60) * box.width, box.y + box.height / 2);
    const told = phone.page.locator('#minute .tip');
    await until('a touched bar is told', async () =>
      (await told.isVisible()) && (await told.textContent()).startsWith(await expected(10)));
    assert.equal(await overflow(phone.page), 0);
    await screenshot(phone.page, 'chart-touch');
  },

  async 'the chart is a table too, for screen readers and everybody else'() {
    const { page } = await open({ locale: 'en', timezoneId: 'UTC' });
    await ready(page);
    await page.locator('summary', { hasText: 'Show as a table' }).click();
    for (const name of PERIODS) {
      await page.locator(`nav a[href="#${name}"]`).click();
      await until(`${name} as a table`, async () => {
        const rows = await page.locator('tbody tr td').allTextContents();
        const visits = (await points(name)).map(point => point.visits).reverse();
        return JSON.stringify(rows.map(digits)) === JSON.stringify(visits);
      });
      const heads = await page.locator('tbody th[scope=row]').count();
      assert.equal(heads, await page.locator('tbody tr').count());
      assert.match(await page.getByRole('table').locator('caption').textContent(), /^Visits per/);
    }
    await screenshot(page, 'table');
  },

  async 'times are local by script and in UTC without'() {
    const timezoneId = 'Asia/Tokyo';
    const served = await open({ timezoneId, javaScriptEnabled: false });
    const local = await open({ timezoneId });
    await ready(local.page);
    const last = page => page.locator('#minute .axis time').last();
    const start = (await last(local.page).getAttribute('datetime')).slice(11, 16);
    const hour = (Number(start.slice(0, 2)) + 9) % 24;
    assert.equal(
      await last(local.page).textContent(),
      String(hour).padStart(2, '0') + start.slice(2),
    );
    const utc = await last(served.page).getAttribute('datetime');
    assert.equal(await last(served.page).textContent(), utc.slice(11, 16));
    assert.match(await served.page.locator('#zone').textContent(), /em UTC/);
    assert.match(await local.page.locator('#zone').textContent(), /GMT\+9/);
  },

  async 'choosing a period neither scrolls nor fills the Back button'() {
    const context = { viewport: { width: 700, height: 400 } };
    const { page } = await open(context);
    await ready(page);
    // The links are in view, so that a click needs no scrolling.
    await page.evaluate(() => scrollTo(0, 150));
    const steps = await page.evaluate(() => history.length);
    const before = await total(page);
    for (const name of ['hour', 'day', 'month', 'minute', 'month']) {
      await page.locator(`nav a[href="#${name}"]`).click();
      assert.ok(await page.locator(`#${name}`).isVisible(), name);
      assert.equal(await page.locator('figure:visible').count(), 1);
      assert.equal(await page.evaluate(() => scrollY), 150, `${name} scrolls`);
      assert.equal(await page.evaluate(() => history.length), steps, `${name} is a step`);
      const current = page.locator('nav a[aria-current="true"]');
      assert.equal(await current.count(), 1);
      assert.equal(await current.getAttribute('href'), '#' + name);
    }
    assert.equal(await total(page), before, 'choosing is no visit');
    await page.reload();
    await ready(page);
    assert.ok(await page.locator('#month').isVisible(), 'a reload keeps the choice');
  },

  async 'peak with its time, today, this week, and the months before'() {
    const { page } = await open({ locale: 'en', timezoneId: 'UTC' });
    await ready(page);
    for (const name of PERIODS) {
      await page.locator(`nav a[href="#${name}"]`).click();
      await until(`the peak by ${name}`, async () => {
        const all = await points(name), most = Math.max(...all.map(point => point.visits));
        const peak = all.findLast(point => point.visits === most);
        return digits(await page.locator(`#${name} .most`).textContent()) === most &&
          (await page.locator(`#${name} .peak time`).getAttribute('datetime')) === peak.start;
      });
    }
    const days = await points('day');
    assert.ok(digits(await page.locator('#today').textContent()) >= days.at(-1).visits);
    const sinceMonday = (new Date(days.at(-1).start).getUTCDay() + 6) % 7;
    const week = days.slice(-1 - sinceMonday).reduce((sum, { visits }) => sum + visits, 0);
    const shown = digits(await page.locator('#week').textContent());
    assert.ok(shown >= week && shown < week + 50, `${shown}, ${week}`);
    const months = await points('month');
    assert.ok(months.slice(0, 18).some(({ visits }) => visits > 0), 'nothing beyond 90 days');
  },

  async 'the history can be downloaded as CSV and as JSON'() {
    for (const javaScriptEnabled of [true, false]) {
      const { page } = await open({ javaScriptEnabled });
      if (javaScriptEnabled) await ready(page);
      const by = 'day';
      await page.locator('nav a[href$="#day"]').click();
      for (const [kind, holds] of [
        ['csv', text => text.startsWith('start,visits\r\n') && text.split('\r\n').length > 60],
        ['json', text => JSON.parse(text).by === by],
      ]) {
        const [download] = await Promise.all([
          page.waitForEvent('download'),
          page.locator('.get a:visible', { hasText: kind.toUpperCase() }).click(),
        ]);
        assert.equal(download.suggestedFilename(), `visitas-${by}.${kind}`);
        const text = await readFile(await download.path(), 'utf8');
        assert.ok(holds(text), text.slice(0, 200));
      }
    }
  },

  async 'a chart without any visit is no broken chart'() {
    const server = await serve();
    await isReady(server);
    const { page, wrong } = await open({ at: server.url });
    await ready(page);
    for (const name of PERIODS) await page.locator(`nav a[href="#${name}"]`).click();
    await page.locator('#month .bars').hover();
    assert.match(await page.locator('#month .tip').textContent(), /visita/);
    assert.deepEqual(wrong, []);
    await screenshot(page, 'first-visit');
    await server.stop();
  },
};

/** The charts of the page, and as the server makes them now. */
async function shapesOf(names) {
  const html = await (await fetch('/history?format=html')).text();
  return [document, new DOMParser().parseFromString(html, 'text/html')].map(page =>
    names.map(name => {
      const figure = page.getElementById(name);
      return [
        [...figure.querySelectorAll('.y span')].map(one => one.textContent),
        [...figure.querySelectorAll('path')].map(path => path.getAttribute('d')),
        [...figure.querySelectorAll('figcaption time, .axis time')].map(one => one.dateTime),
        ['.sum', '.most'].map(one => figure.querySelector(one).textContent),
        figure.querySelector('svg').getAttribute('viewBox'),
        figure.querySelector('figcaption').firstChild.data,
        figure.querySelector('.most').nextSibling.data,
      ];
    }),
  );
}
