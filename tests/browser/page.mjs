// Numbers, languages, sizes, colours, keyboard, print.
import assert from 'node:assert/strict';
import {
  DESKTOP, PERIODS, PHONE, database, isReady, open, overflow, ready, screenshot, serve, sql, total,
  until, url, violations, visit,
} from './support.mjs';

export default {
  async 'the numbers rise on reload, and nothing goes wrong'() {
    const { page, wrong } = await open();
    const before = await total(page);
    await page.reload();
    assert.equal(await total(page), before + 1);
    assert.equal(await page.locator('html').getAttribute('lang'), 'pt-BR');
    await ready(page);
    assert.deepEqual(wrong, []);
  },

  async 'numbers are written as the language writes them, by the server and by the script'() {
    for (const [locale, expected, lang] of [
      ['pt-BR', /^\d{1,3}(\.\d{3})+$/, 'pt-BR'],
      ['pt-PT', /^\d{1,3}(\.\d{3})+$/, 'pt-BR'],
      ['en', /^\d{1,3}(,\d{3})+$/, 'en'],
      ['fr', /^\d{1,3}(,\d{3})+$/, 'en'],
    ]) {
      const { page } = await open({ locale });
      assert.equal(await page.locator('html').getAttribute('lang'), lang, locale);
      assert.match(await page.locator('#total').textContent(), expected);
      const before = await total(page);
      await visit();
      await page.waitForFunction(
        least => document.getElementById('total').value > least,
        String(before),
      );
      assert.match(await page.locator('#total').textContent(), expected);
    }
  },

  async 'the longest name of a counter does not widen a page'() {
    const { line, env } = await database('long_name');
    const server = await serve({ ...env, COUNTERS: '*' });
    await isReady(server);
    const name = 'shop-www'.padEnd(64, 'w'), at = `${server.url}c/${name}`;
    const viewport = { width: 320, height: 640 };
    const fits = async (path, options) => {
      const { page, context } = await open({ at: at + path, viewport, ...options });
      assert.match(await page.locator('header').innerText(), new RegExp(name));
      if (!path && !options && await page.locator('#live').count()) {
        await ready(page);
        await page.locator('#embed summary').click();
      }
      assert.equal(await overflow(page), 0, path);
      await context.close();
    };
    for (const options of [undefined, { javaScriptEnabled: false }]) {
      await fits('', options);
      await fits('/history?format=html', options);
    }
    line.cut();
    await until('a visit is refused', async () => (await fetch(at)).status === 503);
    await fits('', { javaScriptEnabled: false });
    await server.stop();
  },

  async 'no number is broken or cut off, however long and in whatever font'() {
    const { env } = await database('long_numbers');
    const server = await serve(env);
    await isReady(server);
    await visit(server.url);
    for (const wanted of [999_999, 1_234_569, 98_765_432_105, Number.MAX_SAFE_INTEGER]) {
      sql('long_numbers', `UPDATE visitas_base SET total = total + ${wanted} - visitas_total()`);
      for (const [size, viewport] of Object.entries({
        desktop: DESKTOP, phone: PHONE, narrow: { width: 280, height: 600 },
      })) {
        for (const javaScriptEnabled of [false, true]) {
          const { page } = await open({ at: server.url, viewport, javaScriptEnabled });
          if (javaScriptEnabled) await ready(page);
          for (const family of ['DejaVu Sans', 'DejaVu Serif', 'monospace', '']) {
            await page.evaluate(family => { document.body.style.fontFamily = family; }, family);
            const [boxes, out] = await page.locator('#total').evaluate(element => {
              const range = document.createRange();
              range.selectNodeContents(element);
              const text = range.getBoundingClientRect(), tile = element.closest('div');
              const space = tile.getBoundingClientRect();
              return [range.getClientRects().length, text.right - space.right];
            });
            const what = `${wanted} on ${size} in ${family || 'the system font'}`;
            assert.equal(boxes, 1, `${what}: broken`);
            assert.ok(out <= 0.5, `${what}: ${out} px too wide`);
            assert.equal(await overflow(page), 0, `${what}: scrolls sideways`);
          }
          if (wanted === 98_765_432_105 && javaScriptEnabled && size !== 'narrow')
            await screenshot(page, `long-number-${size}`);
          await page.context().close();
        }
      }
    }
    await server.stop();
  },

  async 'it needs no script, and plain links choose the chart'() {
    const { page, wrong } = await open({ javaScriptEnabled: false });
    const before = await total(page);
    await screenshot(page, 'no-script');
    assert.ok(await page.locator('#minute').isVisible());
    // The other periods are on a page of their own, and so are all of them as tables.
    for (const name of [...PERIODS.slice(1), 'minute']) {
      await page.locator(`nav a[href$="#${name}"]`).click();
      for (const other of PERIODS) {
        assert.equal(
          await page.locator(`#${other}`).isVisible(),
          other === name,
          `${other} at #${name}`,
        );
      }
      const figure = page.locator('#' + name);
      await figure.locator('summary').click();
      assert.ok(await figure.locator('tbody tr').first().isVisible(), `${name} as a table`);
      if (name === 'hour') await screenshot(page, 'no-script-history');
    }
    assert.match(await page.locator('footer').textContent(), /UTC/);
    await page.goto(url);
    assert.equal(await total(page), before + 1, 'choosing is no visit');
    assert.match(await page.locator('footer').textContent(), /UTC/);
    assert.deepEqual(wrong, []);
  },

  async 'the keyboard reaches everything, with a mark that is seen'() {
    const { page } = await open();
    await ready(page);
    const reached = [];
    const all = await page.locator('a, summary, .bars').evaluateAll(
      elements => elements.filter(one => one.checkVisibility()).length,
    );
    for (let n = 0; n < all; n++) {
      await page.keyboard.press('Tab');
      reached.push(
        await page.evaluate(() => {
          const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
          return document.activeElement.matches('a, summary, .bars') &&
            outlineStyle === 'solid' && parseFloat(outlineWidth) >= 2;
        }),
      );
    }
    assert.ok(all >= 10 && reached.every(Boolean), String(reached));
    await page.locator('nav a[href="#hour"]').focus();
    await page.keyboard.press('Enter');
    assert.ok(await page.locator('#hour').isVisible());
  },

  async 'dark and light, phone and desktop: nothing is cut off, and axe finds nothing'() {
    for (const colorScheme of ['light', 'dark']) {
      for (const [size, viewport] of Object.entries({
        desktop: DESKTOP,
        phone: PHONE,
        narrow: { width: 280, height: 600 },
      })) {
        const { page, wrong } = await open({ colorScheme, viewport, deviceScaleFactor: 1 });
        await ready(page);
        const paper = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
        assert.equal(await overflow(page), 0, `${size}: scrolls sideways`);
        const bright =
          paper
            .match(/\d+/g)
            .slice(0, 3)
            .reduce((sum, part) => sum + Number(part), 0) / 3;
        assert.ok(colorScheme === 'dark' ? bright < 60 : bright > 200, `${colorScheme}: ${paper}`);
        assert.deepEqual(await violations(page), [], `${colorScheme} ${size}`);
        if (size !== 'narrow') await screenshot(page, `${colorScheme}-${size}`);
        // With all of it shown.
        await page.locator('#minute .bars').focus();
        for (const summary of await page.locator('summary').all()) await summary.click();
        assert.equal(await overflow(page), 0, `${size}: scrolls sideways when all is open`);
        assert.deepEqual(await violations(page), [], `${colorScheme} ${size}, all open`);
        if (colorScheme === 'light' && size === 'phone') await screenshot(page, 'all-open-phone');
        assert.deepEqual(wrong, []);
        await page.context().close();
      }
    }
  },

  async 'the page of all periods is as accessible, without a script'() {
    for (const colorScheme of ['light', 'dark']) {
      for (const viewport of [DESKTOP, PHONE, { width: 280, height: 600 }]) {
        const { page, wrong } = await open({ at: url + 'history?format=html', colorScheme, viewport });
        assert.deepEqual(await violations(page), [], colorScheme);
        await page.locator('nav a[href="#month"]').click();
        await page.locator('#month summary').click();
        assert.equal(await overflow(page), 0);
        assert.deepEqual(await violations(page), [], `${colorScheme}, a table`);
        if (colorScheme === 'dark' && viewport === PHONE)
          await screenshot(page, 'history-dark-phone');
        assert.deepEqual(wrong, []);
        await page.context().close();
      }
    }
  },

  async 'with text twice as large nothing is cut off'() {
    for (const viewport of [DESKTOP, PHONE]) {
      const { page } = await open({ viewport });
      await page.evaluate(() => { document.documentElement.style.fontSize = '200%'; });
      await ready(page);
      for (const name of PERIODS) {
        await page.locator(`nav a[href="#${name}"]`).click();
        await page.locator(`#${name} .bars`).focus();
        await page.locator(`#${name} .tip`).waitFor({ state: 'visible' });
        for (const key of ['Home', 'PageUp', 'End']) {
          await page.keyboard.press(key);
          assert.equal(await overflow(page), 0, `${viewport.width}, ${name}, ${key}`);
        }
        const times = await page.locator(`#${name} .axis time`).evaluateAll(elements =>
          elements.map(element => element.getBoundingClientRect().toJSON()));
        assert.ok(times[0].right < times[1].left, `${viewport.width}, ${name}: times overlap`);
      }
      await screenshot(page, viewport === PHONE ? 'large-text-phone' : 'large-text');
    }
  },

  async 'in forced colours bars, choice and states are still there'() {
    const { page } = await open({ forcedColors: 'active' });
    await ready(page);
    const [paper, bar, chosen, other] = await page.evaluate(() => {
      const of = (selector, property) => getComputedStyle(document.querySelector(selector))[property];
      return [
        of('body', 'backgroundColor'), of('#minute path', 'stroke'),
        of('nav a[aria-current]', 'backgroundColor'),
        of('nav a:not([aria-current])', 'backgroundColor'),
      ];
    });
    assert.notEqual(bar, paper);
    assert.notEqual(chosen, other);
    await page.locator('#minute .bars').focus();
    await screenshot(page, 'forced-colors');
  },

  async 'printed, all charts are there, on white, and nothing to click'() {
    for (const [at, javaScriptEnabled] of [[url, true], [url + 'history?format=html', false]]) {
      const { page } = await open({ at, colorScheme: 'dark', javaScriptEnabled });
      if (javaScriptEnabled) await ready(page);
      // This is what asks for the periods that were not chosen.
      await page.pdf();
      await page.emulateMedia({ media: 'print' });
      for (const name of PERIODS) {
        assert.ok(await page.locator(`#${name}`).isVisible(), name);
        assert.ok(await page.locator(`#${name} .sum`).isVisible(), `${name} is empty`);
        assert.match(await page.locator(`#${name} .now`).getAttribute('d'), /^M/, name);
      }
      assert.equal(await page.locator('a:visible, button:visible, summary:visible').count(), 0);
      assert.equal(
        await page.evaluate(() => getComputedStyle(document.body).backgroundColor),
        'rgb(255, 255, 255)',
      );
      if (javaScriptEnabled) await screenshot(page, 'print');
    }
  },

  async 'it tells how to use the counter, with its own address'() {
    const { page } = await open({ permissions: ['clipboard-read', 'clipboard-write'] });
    await page.locator('#embed summary').click();
    const codes = await page.locator('#embed code').allTextContents();
    const routes = ['visit.svg"', 'visit.svg)', 'visit"', '", {', 'badge.svg)'];
    for (const [index, route] of routes.entries())
      assert.ok(codes[index].includes((url + route).replace('//"', '/"')), codes[index]);
    assert.ok(codes[5].includes(encodeURIComponent(url + 'badge.json')), codes[5]);
    await page.locator('#embed button').first().click();
    await until('it is copied', async () =>
      (await page.evaluate(() => navigator.clipboard.readText())) === codes[0]);
    await page.locator('#embed button', { hasText: 'Copiado' }).waitFor();
    await screenshot(page, 'embed');
  },

  async 'all of it is small'() {
    const { page } = await open();
    let bytes = 0;
    for (const path of [
      '/',
      ...(await page
        .locator('link[href], script[src]')
        .evaluateAll(all => all.map(one => one.getAttribute('href') ?? one.getAttribute('src')))),
    ]) {
      bytes += (await (await fetch(new URL(path, url))).arrayBuffer()).byteLength;
    }
    assert.ok(bytes < 40_000, `${bytes} bytes`);
    console.log(`  ${bytes} bytes in all`);
  },
};
