// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Makes docs/pictures: each page wide in English, light and dark, and in Chinese as a phone shows it. With names of pages only these.

import { mkdir } from 'node:fs/promises';
import { launch, lookThrough, newPage } from './browser.mjs';
import { pages } from './pages/index.mjs';
import { Service } from './service.mjs';

const folder = new URL('../../../../docs/pictures/', import.meta.url).pathname;
const only = process.argv.slice(2);
const shots = [
  { suffix: '', width: 1280, height: 1040, scheme: 'light', language: 'en' },
  { suffix: '-dark', width: 1280, height: 1040, scheme: 'dark', language: 'en' },
  { suffix: '-phone', width: 390, height: 844, scheme: 'light', language: 'zh-Hant-HK' },
];

await mkdir(folder, { recursive: true });
const browser = await launch();
const service = await new Service().start();
try {
  for (const { name, path, ready, answers, as, show } of pages.filter(({ name, picture }) => picture !== false && (only.length === 0 || only.includes(name)))) {
    service.answers = answers();
    service.session = { ...service.session, user: as, username: `oidc:${as}` };
    for (const { suffix, width, height, scheme, language } of shots) {
      const { page, close } = await newPage(browser, { width, scheme, language });
      await page.goto(service.url + path);
      await lookThrough(page, ready);
      await show?.(page);
      await page.evaluate(() => document.fonts.ready);
      const whole = await page.evaluate(() => document.documentElement.scrollHeight);
      await page.setViewportSize({ width, height: Math.min(height, whole) });
      await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
      await page.screenshot({ path: `${folder}${name}${suffix}.png` });
      await close();
    }
  }
} finally {
  await browser.close();
  await service.stop();
}
