// SPDX-License-Identifier: Apache-2.0

package postgres

// What holds locks in this database is bounded by the server, not only by its client: a client that was stopped, or
// whose network is gone, would otherwise hold them until the operating system gives the connection up, which takes
// hours. Each of the bounds ends with its transaction, so they pass through a transaction pooler, and no server has to
// be configured.
//
//   - lock_timeout: whoever waits for a lock gives up and is run again, rather than keep its own locks for ever;
//   - statement_timeout: a statement whose client no longer waits for it ends. It does not count while a COMMIT waits
//     for a synchronous standby;
//   - idle_in_transaction_session_timeout: a client that says nothing more loses its transaction;
//   - tcp_user_timeout: so does one that receives nothing more.
//
// The batches' own timeout on the client's side is as long as the last three: nobody waits for what they end.
const (
	lockTimeout = "5s"
	lockHolding = "10s"

	boundedLocks = "set_config('lock_timeout', '" + lockTimeout + "', true), set_config('statement_timeout', '" +
		lockHolding + "', true), " +
		"set_config('idle_in_transaction_session_timeout', '" + lockHolding +
		"', true), set_config('tcp_user_timeout', '" + lockHolding + "', true)"
	// PlanOnce has each statement planned once a connection, and for an index: without it small batches are planned
	// anew each time, because a generic plan assumes ten rows, and a plan that was made while a table was small goes on
	// reading all of it when it no longer is. That is why plain index scans are off too, which would read the whole
	// index of an empty table: what is left, bitmap scans, needs keys. Such penalties look to the JIT compiler like
	// expensive queries.
	PlanOnce = "SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', " +
		"'off', true), " +
		"set_config('enable_indexscan', 'off', true), set_config('enable_indexonlyscan', 'off', true), " +
		"set_config('jit', 'off', true), " + boundedLocks
	// beginBounded begins a transaction that is no batch, in one round trip: without arguments it goes by the simple
	// protocol.
	beginBounded = "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT " + boundedLocks
	// beginSnapshot begins one that reads much, all of it in one snapshot. The statements of batches are not to wait
	// for it: it takes locks on rows that are its own kind's only. What it reads is seldom what the planner expects,
	// and never worth compiling.
	beginSnapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT " + boundedLocks +
		", set_config('statement_timeout', '2min', true), set_config('jit', 'off', true)"
)
