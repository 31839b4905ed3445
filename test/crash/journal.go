// SPDX-License-Identifier: Apache-2.0

package main

import "time"

// entry is what one client knows about one piece of work: what it has asked for, and what it was told.
type entry struct {
	user, key string
	estimate  int64 // ms
	// id is empty until an admission is acknowledged.
	id, lease string
	// refused says that the admission was, and uncertain that an earlier try of it went unanswered: that try may have
	// been admitted when it came to its turn, and nobody uses it.
	refused, uncertain bool
	// asked are the actual uses of all calls of complete that were sent, in ms, answered or not.
	asked []int64
	// settled is the use that the service said it charged.
	settled   int64
	isCharged bool
	// ended is the state in which the service said it ended without a charge; empty if it never said so.
	ended string
	// held is until when the service said the lease lasts.
	held time.Time
}
