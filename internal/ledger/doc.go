// SPDX-License-Identifier: Apache-2.0

// Package ledger is the one writer path: everything that changes an account, whoever asks, is an Op that the Engine
// runs.
//
// The engine puts the operations that arrive while one transaction commits into the next. A batch is one transaction of
// two round trips: the Store locks the accounts and reads what hangs from them (Begin), the engine rolls each account
// to the present, lets each operation change its Ledger by the pure functions of package quota, and starts what waits
// for a slot; the store writes what differs and commits. Then each caller gets its own answer, and the hub wakes
// whoever waits for an admission that has changed, here and through the Notifier in other processes.
package ledger
