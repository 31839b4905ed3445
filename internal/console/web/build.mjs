// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Builds dist/ from src/ and html/, and fails if a page has become too large. The same sources and lock file make the
// same bytes on every machine, so `make verify` can compare what is committed with what is built.

import { build } from 'esbuild';
import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, 'dist');

// What a page may weigh when it is sent, in bytes after gzip: everything that a first visit loads.
const bounds = [
  { what: 'console', files: ['console.html', 'console.js', 'chunk.js', 'uPlot.esm.js', 'console.css'], most: 100 * 1024 },
  { what: 'usage page', files: ['usage.html', 'usage.js', 'usage.css'], most: 60 * 1024 },
  { what: 'widget', files: ['widget.js'], most: 40 * 1024 },
];

const options = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  charset: 'utf8',
  format: 'iife',
  target: ['es2022'],
  jsx: 'automatic',
  jsxImportSource: 'preact',
  define: { 'process.env.NODE_ENV': '"production"' },
  legalComments: 'none',
  banner: { js: '/* Licences of what is in here: licenses.txt beside it. */' },
  logLevel: 'warning',
  write: false,
  outdir: dist,
};

async function bundles() {
  const files = new Map();
  const made = [
    // What draws plots is loaded by the pages that have one.
    await build({ ...options, entryPoints: { console: 'src/console/main.tsx' }, format: 'esm', splitting: true, chunkNames: '[name]' }),
    await build({ ...options, entryPoints: { usage: 'src/usage/main.tsx' } }),
    // The widget's style sheet goes into its script, which puts it into a shadow tree.
    await build({ ...options, entryPoints: { widget: 'src/widget/main.tsx' }, plugins: [stylesAsText] }),
  ];
  for (const { outputFiles } of made) {
    for (const file of outputFiles) files.set(file.path.slice(dist.length + 1), Buffer.from(file.contents));
  }
  for (const page of ['console.html', 'usage.html']) files.set(page, await readFile(join(here, 'html', page)));
  files.set('licenses.txt', Buffer.from(await licences()));
  return files;
}

// stylesAsText lets `import css from './x.css'` be the minified text of a style sheet.
const stylesAsText = {
  name: 'styles-as-text',
  setup(builder) {
    builder.onLoad({ filter: /\.css$/ }, async ({ path }) => {
      const { outputFiles } = await build({
        absWorkingDir: here, entryPoints: [path], bundle: true, minify: true, charset: 'utf8', write: false,
        target: options.target, logLevel: 'warning',
      });
      return { contents: outputFiles[0].text.trim(), loader: 'text' };
    });
  },
};

async function licences() {
  const { dependencies } = JSON.parse(await readFile(join(here, 'package.json'), 'utf8'));
  const names = [...Object.keys(dependencies), '@preact/signals-core', 'openapi-typescript-helpers'].sort();
  const parts = [];
  for (const name of names) {
    const folder = join(here, 'node_modules', name);
    const { version, license } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'));
    const text = (await readdir(folder)).find((file) => /^licen[cs]e/i.test(file));
    const words = text ? (await readFile(join(folder, text), 'utf8')).trim() : license;
    parts.push(`${name} ${version}\n\n${words}\n`);
  }
  return parts.join(`\n${'-'.repeat(72)}\n\n`);
}

function weigh(files) {
  let fits = true;
  for (const { what, files: names, most } of bounds) {
    const weight = names.reduce((sum, name) => sum + gzipSync(files.get(name), { level: 9 }).length, 0);
    console.log(`${what}: ${(weight / 1024).toFixed(1)} KiB compressed, at most ${most / 1024}`);
    fits &&= weight <= most;
  }
  return fits;
}

const files = await bundles();
if (!weigh(files)) {
  console.error('build: a page is larger than it may be');
  process.exit(1);
}
await rm(dist, { recursive: true, force: true });
await mkdir(dist, { recursive: true });
for (const [name, contents] of files) await writeFile(join(dist, name), contents);
