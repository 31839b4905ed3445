// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Every page, and who looks at it. A new page is an entry of a file here: its path, what is there once it is (`ready`), and the
// `answers` that tests of what happens on it begin with; `show` does what a picture of it shows.

import now from './now.mjs';
import operators from './operators.mjs';
import usage from './usage.mjs';

export const pages = [...usage.map((page) => ({ as: 'mina', ...page })), ...[...now, ...operators].map((page) => ({ as: 'olga', ...page }))];
export const schemes = ['light', 'dark'];
export const widths = [360, 1280];
export const languages = ['en', 'zh-Hant-HK'];
