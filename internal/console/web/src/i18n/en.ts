// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// English: the texts that all pages share, and those of the usage page and the widget.

export const common = {
  language: 'Language',
  signIn: 'Sign in',
  signOut: 'Sign out',
  signedInAs: 'Signed in as {user}',
  signInFirst: 'Sign in to see this page.',
  notAllowed: 'You have no right to see this.',
  notFound: 'There is nothing here.',
  goBack: 'Back to the start',
  failed: 'This could not be read: {why}',
  failedOffline: 'The service does not answer.',
  again: 'Try again',
  loading: 'Reading …',
  skip: 'Skip to the content',
  keys: 'Keys',
  'keys.help': 'Show these keys',
  'keys.filter': 'Go to the filter',
  'keys.rows': 'Move between rows, links and buttons',
  'keys.close': 'Close',
  'state.live': 'Live',
  'state.connecting': 'Connecting …',
  'state.offline': 'Offline',
  'state.offlineSince': 'Offline: this is what was known at {time}. Trying again.',
  time: 'Time',
  filter: 'Filter',
  filterOf: 'Filter: {what}',
  clear: 'Clear',
  copyCSV: 'Copy as CSV',
  saveCSV: 'Download CSV',
  copied: 'Copied',
  more: 'Show more',
  nothing: 'Nothing yet',
  nothingMatches: 'Nothing matches the filter',
  'rows.one': '{n} row',
  'rows.other': '{n} rows',
  'rowsOf.one': '{n} row of {all}',
  'rowsOf.other': '{n} rows of {all}',
  sortBy: 'Sort by {what}',
};
export type CommonKey = keyof typeof common | 'rows' | 'rowsOf';

export const usage = {
  title: 'Usage',
};
export type UsageKey = keyof typeof usage;
