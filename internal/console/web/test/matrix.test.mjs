// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Each page in each theme, width and language, on the real service after a year of a hundred users: no error, no serious
// finding of axe, nothing that stands out to the side, and a keyboard reaches everything.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { accessible, byKeyboard, fits, launch, lookThrough, newPage, signIn } from './browser.mjs';
import { languages, pages, schemes, widths } from './pages/index.mjs';
import { startYear } from './stack.mjs';

let browser, stack;
const sessions = {};
before(async () => {
  [browser, stack] = await Promise.all([launch(), startYear()]);
  for (const { as } of pages) sessions[as] ??= await signIn(browser, stack, as);
}, { timeout: 180_000 });
after(async () => {
  await browser?.close();
  await stack?.stop();
}, { timeout: 60_000 });

test('no page of the console is left out', async () => {
  const source = await readFile(new URL('../src/console/pages.ts', import.meta.url), 'utf8');
  const routes = [...source.matchAll(/\{ path: '([^']*)'/g)].map(([, route]) => new RegExp(`^${`/console/${route}`.replace(/\/$/, '').replace(/:\w+/g, '[^/]+')}$`));
  assert.ok(routes.length > 5, 'the list of pages is where it was');
  const paths = pages.map(({ path }) => path.split('?')[0]);
  assert.deepEqual(routes.filter((route) => !paths.some((path) => route.test(path))), []);
});

// Two at once, as the machine has two processors at least.
test('the matrix', { concurrency: 2 }, async (t) => {
  const all = [];
  for (const { name, path, as, ready } of pages) {
    for (const width of widths) {
      for (const language of languages) {
        all.push(t.test(`${name} ${width} ${language}`, async () => {
          const { page, errors, close } = await newPage(browser, { width, language, session: sessions[as] });
          await page.goto(stack.url + path);
          await lookThrough(page, ready);
          assert.equal(await page.evaluate(() => document.documentElement.lang), language);
          // The reader changes the theme: what is there follows.
          for (const colorScheme of schemes) {
            await page.emulateMedia({ colorScheme });
            await fits(page);
            await accessible(page);
          }
          await byKeyboard(page);
          assert.deepEqual(errors, []);
          await close();
        }));
      }
    }
  }
  await Promise.all(all);
});

for (const path of ['/usage', '/console']) {
  test(`${path} signed out`, async () => {
    const { page, close } = await newPage(browser, { session: { cookies: [], origins: [] } });
    await page.goto(`${stack.url}${path}?sort=-at`);
    const link = page.getByRole('link', { name: 'Sign in' });
    assert.equal(await link.getAttribute('href'), `/auth/login?return=${encodeURIComponent(`${path}?sort=-at`)}`);
    await accessible(page);
    await close();
  });
}
