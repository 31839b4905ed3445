// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The parts of the pages that are functions.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { build } from 'esbuild';

let units, folder;
after(() => rm(folder, { recursive: true, force: true }));
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'usage-units-'));
  await build({
    stdin: {
      contents: "export { parser } from './lib/stream'; export { csv } from './lib/csv'; export { match } from './lib/router';" +
        "export { compare, select } from './lib/table'; export { choose, makeI18n } from './lib/i18n'; export { en, zhHantHK } from './i18n';",
      resolveDir: new URL('../src', import.meta.url).pathname, loader: 'ts',
    },
    bundle: true, format: 'esm', jsx: 'automatic', jsxImportSource: 'preact', outfile: join(folder, 'units.mjs'),
  });
  globalThis.navigator ??= { languages: ['en-GB'] };
  units = await import(join(folder, 'units.mjs'));
});

test('server-sent events, however they are cut', () => {
  const text = ': hello\r\nretry: 250\nid: 7\nevent: standing\ndata: {"a":\ndata: 1}\n\n:\n\ndata:x\r\rid\nevent: empty\n\n';
  const want = [['retry', '250'], ['id', '7'], ['standing', '{"a":\n1}'], ['message', 'x'], ['id', '']];
  for (let size = 1; size <= text.length; size++) {
    const got = [];
    const feed = units.parser((name, data) => got.push([name, data]), (name, value) => got.push([name, value]));
    for (let at = 0; at < text.length; at += size) feed(text.slice(at, at + size));
    assert.deepEqual(got, want, `in pieces of ${size}`);
  }
});

test('CSV keeps commas, quotes and lines, and gives a spreadsheet no formula', () => {
  assert.equal(units.csv(['a', 'b'], [['x,y', 'say "hi"'], ['two\nlines', -4.5], ['=1+1', null], ['@x', undefined], ['-1', true]]),
    'a,b\r\n"x,y","say ""hi"""\r\n"two\nlines",-4.5\r\n\'=1+1,\r\n\'@x,\r\n\'-1,true\r\n');
});

test('paths', () => {
  assert.deepEqual(units.match('users/:id', '/users/a%20b'), { id: 'a b' });
  assert.equal(units.match('users/:id', '/users'), null);
  assert.equal(units.match('users/:id', '/users/%'), null);
  assert.deepEqual(units.match('', '/'), {});
});

test('rows are those with every word, numbers in the order of numbers', () => {
  const columns = [{ key: 'name', value: (row) => row[0] }, { key: 'n', value: (row) => row[1], show: (row) => `${row[1]} credits` }];
  const rows = [['b10', 9], ['b2', 10], ['a', null], ['陳', 1]];
  const names = (filter, sort) => units.select(rows, columns, filter, sort, 'en').map((row) => row[0]);
  assert.deepEqual(names('', 'n'), ['陳', 'b10', 'b2', 'a']);
  assert.deepEqual(names('', '-n'), ['a', 'b2', 'b10', '陳']);
  assert.deepEqual(names('', 'name'), ['a', 'b2', 'b10', '陳']);
  assert.deepEqual(names('B 9', ''), ['b10']);
  assert.deepEqual(names('credits 陳', ''), ['陳']);
  assert.deepEqual(names('', ''), ['b10', 'b2', 'a', '陳']);
});

test('languages', () => {
  for (const [wanted, locale] of [[['zh-TW'], 'zh-Hant-HK'], [['yue-HK'], 'zh-Hant-HK'], [['fr', 'zh'], 'zh-Hant-HK'], [['fr'], 'en'], [[], 'en'],
    [['en-GB', 'zh-HK'], 'en']]) assert.equal(units.choose(wanted), locale, wanted.join());
  const texts = { en: units.en.usage, 'zh-Hant-HK': units.zhHantHK.usage };
  const en = units.makeI18n('en', texts);
  const zh = units.makeI18n('zh-Hant-HK', texts);
  assert.equal(en.duration(45_000), '45 seconds');
  assert.equal(en.duration(90_061_000), '1 day, 1 hour');
  assert.equal(zh.duration(3 * 86_400_000), '3 日');
  assert.equal(en.money(0.0045, 'USD'), '$0.0045');
  assert.equal(en.money(1234.5, 'USD'), '$1,234.50');
  assert.equal(en.plural('moreWait', 1), '1 more waits.');
  assert.equal(zh.plural('moreWait', 3), '另有 3 項等候中。');
  assert.equal(en.code('reason', 'SomethingNew'), 'SomethingNew');
});

test('both languages put the same values into each text', () => {
  const values = (text) => [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort();
  for (const part of ['common', 'usage']) {
    for (const [key, text] of Object.entries(units.en[part])) {
      assert.deepEqual(values(units.zhHantHK[part][key]), values(text), key);
    }
  }
});
