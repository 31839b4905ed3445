// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The browser: Debian's Chromium, or the one that CHROMIUM names.

import { readFile } from 'node:fs/promises';
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';
import { TIME } from './service.mjs';

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // Chromium's own sandbox needs a user who is not root. Without coloured edges of letters pictures are half as large.
    args: ['--disable-lcd-text', ...(process.getuid?.() === 0 ? ['--no-sandbox'] : [])],
  });

const axe = await readFile(new URL('../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');

/** Signs somebody in at the stack's provider; what is returned is the state of a browser that has the session. */
export async function signIn(browser, stack, name) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, locale: 'en-GB' });
  const page = await context.newPage();
  await page.goto(`${stack.url}/auth/login?return=%2Fusage`);
  await page.locator('input[name=username]').fill(name);
  await page.locator('input[name=password]').fill('password');
  await page.locator('input[name=password]').press('Enter');
  await page.waitForURL(`${stack.url}/usage`);
  const state = await context.storageState();
  await context.close();
  return state;
}

/**
 * A page in a context of its own. Its clock stands at the tests' time and goes on from there; with the `session` of a real
 * service, whose time is the machine's, it is that.
 */
export async function newPage(browser, { width = 1280, scheme = 'light', language = 'en', zone = 'Asia/Hong_Kong', session } = {}) {
  const context = await browser.newContext({
    viewport: { width, height: 900 }, colorScheme: scheme, locale: language === 'en' ? 'en-GB' : 'zh-HK', timezoneId: zone,
    reducedMotion: 'reduce', acceptDownloads: true,
    ...(session ? { storageState: session } : {}),
  });
  const page = await context.newPage();
  if (!session) await page.clock.install({ time: TIME });
  page.setDefaultTimeout(10_000);
  const errors = [];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) errors.push(`${message.text()} ${message.location().url ?? ''}`);
  });
  page.on('pageerror', (error) => errors.push(String(error)));
  return { page, errors, close: () => context.close() };
}

/** Brings everything of a page into view, so that what waits for that is read, until `ready` is there. */
export async function lookThrough(page, ready) {
  await page.evaluate(async (ready) => {
    const frame = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    const there = (root) => root.querySelector(ready) ?? [...root.querySelectorAll('usage-panel')].some((panel) => there(panel.shadowRoot));
    const until = performance.now() + 10_000;
    do {
      for (let y = 0; y < document.documentElement.scrollHeight; y += 300) {
        scrollTo(0, y);
        await frame();
      }
      if (performance.now() > until) throw new Error(`${ready} did not come`);
    } while (!there(document));
    scrollTo(0, 0);
    await frame();
  }, ready);
}

/** No finding of axe that is serious. Its rules are those of WCAG 2.2 AA and of good practice. */
export async function accessible(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
  assert.deepEqual(serious.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target} ${node.failureSummary}`).join('; ')}`), []);
}

/** Nothing stands out of the page to the side. */
export async function fits(page) {
  const { wide, most } = await page.evaluate(() => ({ wide: document.documentElement.scrollWidth, most: innerWidth }));
  assert.ok(wide <= most, `the page is ${wide} px wide in a window of ${most} px`);
}

/** Tab reaches everything that can be operated, once, in the order of the page, and shows where it is. */
export async function byKeyboard(page) {
  const want = await page.evaluate(() => {
    const operable = 'a[href], button:not([disabled]), input:not([disabled]), select:not([disabled]), textarea:not([disabled]), summary, [tabindex="0"]';
    // Tab goes on from where the focus was, also after that is gone: so it begins at the page itself.
    document.body.tabIndex = -1;
    document.body.focus();
    document.body.removeAttribute('tabindex');
    scrollTo(0, 0);
    return [...document.querySelectorAll(operable)]
      .filter((element) => element.checkVisibility({ visibilityProperty: true }) && element.tabIndex >= 0)
      .map((element, i) => (element.dataset.order = String(i)));
  });
  const got = [];
  const unseen = [];
  for (let i = 0; i < want.length; i++) {
    await page.keyboard.press('Tab');
    const at = await page.evaluate(() => {
      const element = document.activeElement;
      const style = getComputedStyle(element);
      return { order: element.dataset.order, ring: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0, what: element.outerHTML.slice(0, 120) };
    });
    got.push(at.order);
    if (!at.ring) unseen.push(at.what);
  }
  assert.deepEqual(got, want, 'what Tab reaches');
  assert.deepEqual(unseen, [], 'where the focus is not shown');
}
