// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The pages' languages. A new one is a file like en.ts, an entry here and one in lib/i18n.tsx; the compiler names each
// text that it lacks.

export * as en from './en';
export * as zhHantHK from './zh-Hant-HK';
export type { AlertKey, CommonKey, UsageKey } from './en';
