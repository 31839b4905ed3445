// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Each page in each theme, width and language: no error, no serious finding of axe, nothing that stands out to the side,
// and a keyboard reaches everything.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { accessible, byKeyboard, fits, launch, lookThrough, newPage } from './browser.mjs';
import { languages, pages, schemes, widths } from './pages/index.mjs';
import { Service } from './service.mjs';

let browser;
let service;
before(async () => {
  browser = await launch();
  service = await new Service().start();
});
after(async () => {
  await browser?.close();
  await service?.stop();
});

for (const { name, path, ready, answers } of pages) {
  for (const scheme of schemes) {
    for (const width of widths) {
      for (const language of languages) {
        test(`${name} ${scheme} ${width} ${language}`, async () => {
          service.answers = answers();
          const { page, errors, close } = await newPage(browser, { width, scheme, language });
          await page.goto(service.url + path);
          await lookThrough(page, ready);
          assert.equal(await page.evaluate(() => document.documentElement.lang), language);
          await fits(page);
          await accessible(page);
          await byKeyboard(page);
          assert.deepEqual(errors, []);
          await close();
        });
      }
    }
  }
}

for (const path of ['/usage', '/console']) {
  test(`${path} signed out`, async () => {
    const { session } = service;
    service.session = null;
    const { page, close } = await newPage(browser);
    await page.goto(`${service.url}${path}?sort=-at`);
    const link = page.getByRole('link', { name: 'Sign in' });
    assert.equal(await link.getAttribute('href'), `/auth/login?return=${encodeURIComponent(`${path}?sort=-at`)}`);
    await accessible(page);
    service.session = session;
    await close();
  });
}
