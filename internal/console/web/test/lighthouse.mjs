// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// What Lighthouse says of each page, as of a phone on a slow network, on the service after a year of a hundred users. It
// fails where performance or accessibility is below 95. With names of pages only these.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { launch, signIn } from './browser.mjs';
import { pages } from './pages/index.mjs';
import { startYear } from './stack.mjs';

const LEAST = 95;
const only = process.argv.slice(2);
const kinds = ['performance', 'accessibility'];
const exec = promisify(execFile);
const browser = await launch();
const stack = await startYear();
let below = 0;
try {
  const cookies = {};
  console.log(`| page | ${kinds.join(' | ')} |\n|---|---|---|`);
  for (const { name, path, as } of pages.filter(({ name }) => only.length === 0 || only.includes(name))) {
    cookies[as] ??= (await signIn(browser, stack, as)).cookies.map((cookie) => `${cookie.name}=${cookie.value}`).join('; ');
    const { stdout } = await exec('npx', [
      '--yes', 'lighthouse@12.2.3', stack.url + path, '--quiet', '--output=json', `--only-categories=${kinds}`,
      `--extra-headers=${JSON.stringify({ Cookie: cookies[as] })}`, '--chrome-flags=--headless=new --no-sandbox',
      // A stream never ends.
      '--max-wait-for-load=8000',
    ], { env: { ...process.env, CHROME_PATH: process.env.CHROMIUM }, maxBuffer: 1 << 28 });
    const report = JSON.parse(stdout);
    const scores = kinds.map((kind) => Math.round(report.categories[kind].score * 100));
    console.log(`| ${name} | ${scores.join(' | ')} |`);
    if (scores.every((score) => score >= LEAST)) continue;
    below++;
    for (const { title, displayValue, score } of Object.values(report.audits)) if (score !== null && score < 0.9) console.error(`  ${title} ${displayValue ?? ''}`);
  }
} finally {
  await browser.close();
  await stack.stop();
}
process.exitCode = below ? 1 : 0;
