// SPDX-License-Identifier: Apache-2.0

package quota

import "time"

// Stuck says in one word why work that runs seems to have lost its holder. Nothing follows from it but that it is seen:
// a lease ends what has none.
type Stuck string

// The reasons to take work for stuck.
const (
	// StuckNoHeartbeat: nobody has renewed the lease for three times its length. Of an API admission that means that
	// nothing reaps, of a Job's that no controller sees it.
	StuckNoHeartbeat Stuck = "NoHeartbeat"
	// StuckOverEstimate: it has run for more than three times the audio that was declared, and more than ten minutes.
	StuckOverEstimate Stuck = "OverEstimate"
)

// StuckReasons are all of them.
var StuckReasons = []Stuck{StuckNoHeartbeat, StuckOverEstimate}

// StuckAfter is how long anything may run before it can be stuck for its length.
const StuckAfter = 10 * time.Minute

// stuckTimes is how many leases without a heartbeat, and how many times its estimate, are too many.
const stuckTimes = 3

// StuckAt returns why the admission seems stuck at now, empty if it does not.
func (adm *Admission) StuckAt(now time.Time) Stuck {
	switch ran := now.Sub(adm.AdmittedAt); {
	case adm.State != Admitted:
		return ""
	case now.Sub(adm.LeaseUntil) > (stuckTimes-1)*adm.Lease:
		return StuckNoHeartbeat
	case ran > StuckAfter && ran > stuckTimes*adm.Request.Estimate.Audio():
		return StuckOverEstimate
	}
	return ""
}
