// The page in a real browser. Each file has the tests of one subject.
// Usage: node test.mjs URL CHROMIUM [FOLDER FOR SCREENSHOTS]
// Variables: VISITAS (the program), PGPORT, REDIS_PORT, and ONLY: a part of the names to run.
import chart from './chart.mjs';
import live from './live.mjs';
import outage from './outage.mjs';
import page from './page.mjs';
import { browser, stopAll } from './support.mjs';

let passed = 0, failed = 0;
for (const [name, test] of Object.entries({ ...page, ...chart, ...live, ...outage })) {
  if (!name.includes(process.env.ONLY ?? '')) continue;
  try {
    await test();
    passed++;
    console.log(`ok: ${name}`);
  } catch (error) {
    failed++;
    console.error(`FAILED: ${name}\n${error.stack}`);
  }
  await Promise.all(browser.contexts().map(context => context.close()));
}
await browser.close();
stopAll();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
