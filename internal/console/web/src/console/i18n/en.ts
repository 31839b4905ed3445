// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// English: the texts of the console.

const texts = {
  console: 'Console',
  pages: 'Pages',
  now: 'Now',
  'now.plot': 'Admissions in the last five minutes, a second, at this replica',
  'now.admitted': 'Admitted a second',
  'now.queued': 'Queued a second',
  'now.refused': 'Refused a second',
  'now.completed': 'Completed a second',
  'now.charged': 'Credits charged a second',
  'now.running': 'Running',
  'now.waiting': 'Waiting',
  'now.calls': 'Calls in flight',
  'now.streams': 'Open streams',
  'now.database': 'Database',
  'now.up': 'answers',
  'now.down': 'does not answer',
  'now.replica': 'Rates are those of {replica}, over the last second; what runs and waits is everybody’s.',
  'now.refusals': 'Refusals by reason',
  reason: 'Reason',
  perSecond: 'A second',
};
export default texts;
export type ConsoleKey = keyof typeof texts;
