// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// The customers' page.

import './usage.css';
import { en, zhHantHK, type UsageKey } from '../i18n';
import { show } from '../lib/page';
import { useI18n } from '../lib/i18n';

function Usage() {
  const { t } = useI18n<UsageKey>();
  return <main><h1>{t('title')}</h1></main>;
}

show(Usage, { en: en.usage, 'zh-Hant-HK': zhHantHK.usage });
