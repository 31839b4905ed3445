// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The console's languages.

import { useI18n as useTexts, type Catalogue, type Locale } from '../../lib/i18n';
import { en as told, zhHantHK as toldInChinese, type AlertKey } from '../../i18n';
import en, { type ConsoleKey } from './en';
import zhHantHK from './zh-Hant-HK';

export type { ConsoleKey } from './en';
export const texts: Record<Locale, Catalogue<ConsoleKey | AlertKey>> = {
  en: { ...told.alerts, ...en }, 'zh-Hant-HK': { ...toldInChinese.alerts, ...zhHantHK },
};
export const useI18n = useTexts<ConsoleKey | AlertKey>;
