// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Languages: a catalogue of texts each, and Intl for numbers and dates, in the zone of whoever looks.

import { createContext } from 'preact';
import { useContext } from 'preact/hooks';
import { en, zhHantHK, type CommonKey } from '../i18n';

/** What the pages are translated to. The first is taken where a browser wants none of them. */
export const locales = ['en', 'zh-Hant-HK'] as const;
export type Locale = (typeof locales)[number];
export const localeNames: Record<Locale, string> = { en: 'English', 'zh-Hant-HK': '繁體中文' };

/** The texts of one language. Of a key that counts, `key.one` is taken instead of `key` where the language has that form. */
export type Catalogue<K extends string = string> = Record<K, string>;
export type Values = Record<string, string | number>;

export interface I18n<K extends string = CommonKey> {
  readonly locale: Locale;
  /** What Intl is given for numbers and dates. */
  readonly region: string;
  /** A text, with {name} replaced by its value. Numbers are written as the language does. */
  t(key: K, values?: Values): string;
  /** A text that depends on a number, which it has as {n}. */
  plural(key: K, n: number, values?: Values): string;
  /** A text of a code that the service sends, or the code where none is known. */
  code(prefix: string, code: string): string;
  number(value: number, options?: Intl.NumberFormatOptions): string;
  /** Credits, to a thousandth at most. */
  credits(value: number): string;
  money(value: number, currency: string): string;
  percent(share: number): string;
  bytes(value: number): string;
  /** A day, such as 14 Mar 2026. */
  date(instant: string | number | Date): string;
  /** A day of a calendar, 2026-03-14, whose zone is its own. */
  day(day: string): string;
  dateTime(instant: string | number | Date): string;
  time(instant: string | number | Date): string;
  /** From one instant to another, what they have in common once. */
  range(from: string | number | Date, to: string | number | Date): string;
  /** How long, in its two largest units; of under a minute, seconds. */
  duration(milliseconds: number): string;
  readonly zone: string;
}

/** The best of our languages for a list of what is wanted, best first, as navigator.languages has it. */
export function choose(wanted: readonly string[]): Locale {
  return wanted.map(localeOf).find((locale) => locale !== undefined) ?? locales[0];
}

function localeOf(tag: string): Locale | undefined {
  const language = tag.toLowerCase().split('-')[0];
  if (language === 'zh' || language === 'yue') return 'zh-Hant-HK';
  return language === 'en' ? 'en' : undefined;
}

/** How numbers and dates are written: English has its browser's region, which decides on which side the day stands. */
function regionOf(locale: Locale): string {
  return locale === 'en' ? (navigator.languages.find((tag) => localeOf(tag) === 'en') ?? locale) : locale;
}

const common: Record<Locale, Catalogue> = { en: en.common, 'zh-Hant-HK': zhHantHK.common };

/** What a language's texts and Intl make, for the common texts and those of a page. */
export function makeI18n<K extends string>(locale: Locale, pages: Record<Locale, Catalogue<K>>): I18n<K | CommonKey> {
  const texts: Record<string, string | undefined> = { ...common[locale], ...pages[locale] };
  const region = regionOf(locale);
  const rules = new Intl.PluralRules(locale);
  const formats = new Map<string, Intl.NumberFormat>();
  const number = (value: number, options: Intl.NumberFormatOptions = {}) => {
    const key = JSON.stringify(options);
    let format = formats.get(key);
    if (!format) formats.set(key, (format = new Intl.NumberFormat(region, options)));
    return format.format(value);
  };
  const dates = (options: Intl.DateTimeFormatOptions) => {
    const format = new Intl.DateTimeFormat(region, options);
    return (instant: string | number | Date) => format.format(new Date(instant));
  };
  const fill = (text: string, values: Values = {}) =>
    text.replace(/\{(\w+)\}/g, (whole, name: string) => {
      const value = values[name];
      return value === undefined ? whole : typeof value === 'number' ? number(value) : value;
    });
  const unit = (value: number, name: string) =>
    number(value, { style: 'unit', unit: name, unitDisplay: 'long', maximumFractionDigits: 0 });
  const ranges = new Intl.DateTimeFormat(region, { day: 'numeric', month: 'short', hour: 'numeric', minute: 'numeric' });
  const calendar = dates({ dateStyle: 'medium', timeZone: 'UTC' });
  return {
    locale,
    region,
    t: (key, values) => fill(texts[key] ?? key, values),
    plural: (key, n, values) => fill(texts[`${key}.${rules.select(n)}`] ?? texts[key] ?? key, { ...values, n }),
    code: (prefix, code) => texts[`${prefix}.${code}`] ?? code,
    number,
    credits: (value) => number(value, { maximumFractionDigits: 3 }),
    // What a currency has is at least as many places as its own; a transcription costs fractions of a cent.
    money: (value, currency) =>
      number(value, {
        style: 'currency', currency, currencyDisplay: 'narrowSymbol', minimumFractionDigits: 2,
        maximumFractionDigits: Math.abs(value) < 1 ? 6 : 2,
      }),
    percent: (share) => number(share, { style: 'percent', maximumFractionDigits: 1 }),
    bytes: (value) => {
      const units = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte'];
      const power = value < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(value) / 3));
      return number(value / 1000 ** power, { style: 'unit', unit: units[power]!, maximumFractionDigits: 1 });
    },
    date: dates({ dateStyle: 'medium' }),
    day: (day) => calendar(`${day}T00:00:00Z`),
    dateTime: dates({ dateStyle: 'medium', timeStyle: 'short' }),
    time: dates({ timeStyle: 'medium' }),
    range: (from, to) => ranges.formatRange(new Date(from), new Date(to)),
    duration: (milliseconds) => {
      const seconds = Math.max(0, Math.round(milliseconds / 1000));
      if (seconds < 60) return unit(seconds, 'second');
      const minutes = Math.floor(seconds / 60);
      const parts: [number, string][] = [
        [Math.floor(minutes / 1440), 'day'], [Math.floor(minutes / 60) % 24, 'hour'], [minutes % 60, 'minute'],
      ];
      const first = parts.findIndex(([value]) => value > 0);
      const shown = parts.slice(first, first + 2).filter(([value]) => value > 0);
      return new Intl.ListFormat(locale, { type: 'unit', style: locale === 'en' ? 'short' : 'narrow' })
        .format(shown.map(([value, name]) => unit(value, name)));
    },
    zone: new Intl.DateTimeFormat().resolvedOptions().timeZone,
  };
}

export const I18nContext = createContext<I18n<never> | null>(null);

/** The language of where a component is shown; K are the texts of its page. */
export function useI18n<K extends string = CommonKey>(): I18n<K | CommonKey> {
  const i18n = useContext(I18nContext);
  if (!i18n) throw new Error('no language is given here');
  return i18n as unknown as I18n<K | CommonKey>;
}
