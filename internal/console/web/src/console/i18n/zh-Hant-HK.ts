// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// 繁體中文（香港）: the texts of the console.

import type { ConsoleKey } from './en';

const texts: Record<ConsoleKey, string> = {
  console: '控制台',
  pages: '頁面',
  now: '現況',
  'now.plot': '此副本最近五分鐘每秒的准入數目',
  'now.admitted': '每秒准入',
  'now.queued': '每秒排隊',
  'now.refused': '每秒拒絕',
  'now.completed': '每秒完成',
  'now.charged': '每秒扣除點數',
  'now.running': '執行中',
  'now.waiting': '等候中',
  'now.calls': '處理中的請求',
  'now.streams': '開啟的串流',
  'now.database': '資料庫',
  'now.up': '有回應',
  'now.down': '沒有回應',
  'now.replica': '速率為 {replica} 最近一秒的數字；執行中與等候中的數目為全部用戶的總數。',
  'now.refusals': '按原因統計的拒絕',
  reason: '原因',
  perSecond: '每秒',
};
export default texts;
