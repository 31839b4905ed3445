// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Every page, with what it is tested with. A new page is an entry of a file here.

import now from './now.mjs';
import operators from './operators.mjs';
import usage from './usage.mjs';

export const pages = [...usage, ...now, ...operators];
export const schemes = ['light', 'dark'];
export const widths = [360, 1280];
export const languages = ['en', 'zh-Hant-HK'];
