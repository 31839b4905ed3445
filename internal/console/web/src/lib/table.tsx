// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// A table whose filter and sort are parameters of its view, which a keyboard moves in, and which can be taken away as CSV.

import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import { csv, save, type Cell } from './csv';
import { useI18n } from './i18n';
import { useParam } from './params';

export interface Column<R> {
  key: string;
  title: string;
  /** What is filtered, sorted and copied. */
  value(row: R): Cell;
  /** What is shown, if that is not the value as it is. */
  show?(row: R): ComponentChildren;
  /** Numbers stand at the end of their column. */
  end?: boolean;
  /** Only taken away as CSV, not shown. */
  taken?: boolean;
  /** Heads its row for those who listen. One column at most. */
  heads?: boolean;
}

export interface TableProps<R> {
  /** Told to those who listen, and shown where `title` is. */
  caption: string;
  columns: readonly Column<R>[];
  rows: readonly R[] | undefined;
  rowKey(row: R): string;
  /** Tells the parameters of this table from those of others on the page. */
  prefix?: string;
  /** 'none' where there is nothing to filter, 'remote' where the page asks the service for what matches. */
  filter?: 'local' | 'remote' | 'none';
  /** The order unless the view says another, such as '-at'. Without one it is the service's. */
  sort?: string;
  /** Present as long as the service has more. */
  more?: (() => void) | undefined;
  /** Also saves what is not shown yet; of what is there without it. */
  everything?: () => Promise<readonly R[]>;
  /** The file's name, without its ending. */
  file: string;
  /** On a phone each row is a block of its own, a value below the other: for rows that are wide or have long texts. */
  stacks?: boolean;
  /** Instead of "nothing yet". */
  empty?: string;
}

export function compare(a: Cell, b: Cell, locale: string): number {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  return String(a).localeCompare(String(b), locale, { numeric: true });
}

/** The rows whose values have every word of the filter, in any column, in the order of the sort. */
export function select<R>(
  rows: readonly R[], columns: readonly Column<R>[], filter: string, sort: string, locale: string,
): R[] {
  const words = filter.toLocaleLowerCase(locale).split(/\s+/).filter(Boolean);
  const has = (row: R) => {
    const text = columns.map((column) => {
      const shown = column.show?.(row);
      return `${column.value(row) ?? ''} ${typeof shown === 'string' ? shown : ''}`;
    }).join('\n').toLocaleLowerCase(locale);
    return words.every((word) => text.includes(word));
  };
  const kept = words.length > 0 ? rows.filter(has) : [...rows];
  const by = columns.find((column) => column.key === sort.replace(/^-/, ''));
  if (!by) return kept;
  const sign = sort.startsWith('-') ? -1 : 1;
  return kept.sort((a, b) => sign * compare(by.value(a), by.value(b), locale));
}

export function Table<R>(props: TableProps<R>) {
  const { columns, rows, prefix = '', file } = props;
  const seen = columns.filter((column) => !column.taken);
  const i18n = useI18n();
  const { t } = i18n;
  const [filter, setFilter] = useParam(`${prefix}q`);
  const [sort, setSort] = useParam(`${prefix}sort`, props.sort ?? '');
  const [said, setSaid] = useState('');
  const body = useRef<HTMLTableSectionElement>(null);
  const search = useRef<HTMLInputElement>(null);
  const filtering = props.filter ?? 'local';
  const count = rows?.length ?? 0;
  const shown = select(rows ?? [], columns, filtering === 'local' ? filter : '', sort, i18n.locale);
  const text = (of: readonly R[]) =>
    csv(columns.map((c) => c.title), of.map((row) => columns.map((c) => c.value(row))));

  const copy = () => navigator.clipboard.writeText(text(shown)).then(() => setSaid(t('copied')), () => setSaid(t('notCopied')));
  // What was said is of the rows that were there.
  useEffect(() => setSaid(''), [filter, sort, count]);
  const download = async () => {
    const whole = props.everything ? select(await props.everything(), columns, filtering === 'local' ? filter : '', sort, i18n.locale) : shown;
    save(`${file}.csv`, text(whole));
  };
  const places = (of: HTMLTableRowElement) => [...of.querySelectorAll<HTMLElement>('a[href], button')];
  // Down from the filter goes to the first row.
  const enter = (event: KeyboardEvent) => {
    const [first] = body.current?.rows ?? [];
    if (event.key !== 'ArrowDown' || !first) return;
    event.preventDefault();
    (places(first)[0] ?? first).focus();
  };
  // Down and up go to the same place of the next row; where rows have nothing to operate, to the rows themselves. Up from
  // the first one goes to the filter. On a row itself Enter follows its first link.
  const move = (event: KeyboardEvent) => {
    const step = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
    const row = (event.target as HTMLElement).closest('tr');
    if (!row || !body.current?.contains(row) || (event.target as HTMLElement).closest('dialog')) return;
    if (event.key === 'Enter' && event.target === row) row.querySelector<HTMLElement>('a[href]')?.click();
    if (!step) return;
    const all = [...body.current.rows];
    const next = all[all.indexOf(row) + step];
    if (!next) {
      if (step > 0 || !search.current) return;
      event.preventDefault();
      search.current.focus();
      return;
    }
    event.preventDefault();
    const place = Math.max(0, places(row).indexOf(event.target as HTMLElement));
    const target = event.target === row ? next : (places(next)[place] ?? places(next)[0] ?? next);
    row.tabIndex = -1;
    next.tabIndex = 0;
    target.focus();
  };
  return (
    <div class={`table${props.stacks ? ' stacks' : ''}`}>
      <div class="bar">
        {filtering !== 'none' && (
          <input
            type="search"
            ref={search}
            data-filter
            onKeyDown={enter}
            placeholder={t('filter')}
            aria-label={t('filterOf', { what: props.caption })}
            value={filter}
            onInput={(event) => setFilter(event.currentTarget.value)}
          />
        )}
        <span class="count" role="status">
          {said || (rows && (shown.length === count ? i18n.plural('rows', count) : i18n.plural('rowsOf', shown.length, { all: count })))}
        </span>
        <span class="tools">
          {navigator.clipboard && <button type="button" class="quiet" disabled={!rows} onClick={() => void copy()}>{t('copyCSV')}</button>}
          <button type="button" class="quiet" disabled={!rows} onClick={() => void download()}>{t('saveCSV')}</button>
        </span>
      </div>
      <div class="scroll" role="region" aria-label={props.caption} tabIndex={0}>
        <table>
          <caption class="unseen">{props.caption}</caption>
          <thead>
            <tr>
              {seen.map((column) => {
                const on = sort.replace(/^-/, '') === column.key;
                const down = on && sort.startsWith('-');
                return (
                  <th key={column.key} scope="col" class={column.end ? 'end' : undefined} aria-sort={on ? (down ? 'descending' : 'ascending') : undefined}>
                    <button type="button" title={t('sortBy', { what: column.title })} onClick={() => setSort(on && !down ? `-${column.key}` : column.key)}>
                      {column.title}
                      <span aria-hidden="true" class="order">{on ? (down ? '↓' : '↑') : ''}</span>
                    </button>
                  </th>
                );
              })}
            </tr>
          </thead>
          <tbody ref={body} onKeyDown={move}>
            {shown.map((row, i) => (
              <tr key={props.rowKey(row)} tabIndex={i === 0 ? 0 : -1}>
                {seen.map((column) => {
                  const inside = column.show ? column.show(row) : column.value(row);
                  return column.heads
                    ? <th key={column.key} scope="row" data-title={column.title} class={column.end ? 'end' : undefined}>{inside}</th>
                    : <td key={column.key} data-title={column.title} class={column.end ? 'end' : undefined}>{inside}</td>;
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {rows && shown.length === 0 && <p class="none">{count > 0 || filter ? t('nothingMatches') : (props.empty ?? t('nothing'))}</p>}
      {!rows && <p class="none">{t('loading')}</p>}
      {props.more && <button type="button" class="quiet" onClick={props.more}>{t('more')}</button>}
    </div>
  );
}
