// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/queue"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// defaultQueue is how many entries a page of the queue has.
const defaultQueue = 100

// GetQueue implements GET /api/v1/queue.
func (s *server) GetQueue(ctx context.Context, r GetQueueRequestObject) (GetQueueResponseObject, error) {
	limit, filter := defaultQueue, queue.Filter{UserID: r.Params.UserId, Team: r.Params.Team}
	if err := s.mayQueue(ctx, filter.Team); err != nil {
		return nil, err
	}
	if filter.Team != "" && filter.UserID != "" {
		return nil, invalid("user_id: %q cannot be given beside team %q: the limit is one of them", filter.UserID,
			filter.Team)
	}
	if filter.UserID != "" {
		if err := checkUserID(filter.UserID); err != nil {
			return nil, err
		}
	}
	if given := r.Params.Limit; given != nil {
		limit = int(*given)
	}
	if limit < 1 || limit > queue.MaxPage {
		return nil, invalid("limit: %d must be between 1 and %d", limit, queue.MaxPage)
	}
	if reason := r.Params.Reason; reason != "" {
		if filter.Limit = reason.Info().Limit; !slices.Contains(bindingLimits, filter.Limit) {
			return nil, invalid("reason: nothing waits for %.64q, only for %v", reason, waitingReasons())
		}
	}
	after, err := parseSpot(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	page, err := s.queue.List(ctx, filter, after, limit)
	if err != nil {
		return nil, err
	}
	return GetQueue200JSONResponse(queuePage(page)), nil
}

// mayQueue says whether the caller may see all that waits, or, where it is about a team, whether the caller manages
// that.
func (s *server) mayQueue(ctx context.Context, team string) error {
	if team != "" {
		if err := checkTeam("team", team); err != nil {
			return err
		}
	}
	all := s.mayAll(ctx, access.ResourceQueue)
	if all == nil || team == "" {
		return all
	}
	return s.mayOn(ctx, manage, access.ResourceTeams, team)
}

// bindingLimits are those that keep work waiting; others refuse it.
var bindingLimits = []quota.LimitName{
	quota.LimitConcurrent, quota.LimitCredits, quota.LimitDailyCost, quota.LimitFileSize, quota.LimitAudioDuration,
	quota.LimitSuspension,
}

func waitingReasons() []quota.Reason {
	var reasons []quota.Reason
	for _, info := range quota.Reasons {
		if slices.Contains(bindingLimits, info.Limit) {
			reasons = append(reasons, info.Reason)
		}
	}
	return reasons
}

// spotForm is how a place is written before it is encoded; it tells cursors of the queue from others, and from those of
// another release.
const spotForm = "queue/1/%s/%t/%d/%d"

func spotCursor(s queue.Spot) string {
	if s == (queue.Spot{}) {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(
		fmt.Appendf(nil, spotForm, uuid.UUID(s.Account), s.Parked, s.Priority, s.Arrived))
}

func parseSpot(text string) (queue.Spot, error) {
	if text == "" {
		return queue.Spot{}, nil
	}
	var s queue.Spot
	var account string
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil && len(decoded) > len("queue/1/")+36 {
		account = string(decoded[len("queue/1/"):][:36])
		_, err = fmt.Sscanf(string(decoded), "queue/1/"+account+"/%t/%d/%d", &s.Parked, &s.Priority, &s.Arrived)
	}
	id, idErr := uuid.Parse(account)
	s.Account = quota.AccountID(id)
	// What reads the same when it is written again is what was written.
	if err != nil || idErr != nil || spotCursor(s) != text {
		return queue.Spot{}, problem(http.StatusBadRequest, "malformed-request",
			"cursor: %.64q is not the next_cursor of a page", text)
	}
	return s, nil
}

func queuePage(p queue.Page) QueuePage {
	out := QueuePage{Levels: make([]QueueLevel, len(p.Levels)), NextCursor: spotCursor(p.Next), AsOf: p.Now}
	for i, l := range p.Levels {
		level := QueueLevel{
			Level:   Level{Kind: l.Level.Kind, Name: l.Level.Name},
			Waiting: make([]QueueCount, len(l.Counts)), Entries: make([]QueueEntry, len(l.Entries)),
		}
		for j, w := range l.Counts {
			level.Waiting[j] = QueueCount{LimitName: w.Limit, Count: w.Count, More: w.More}
		}
		for j, e := range l.Entries {
			level.Entries[j] = QueueEntry{
				Id: uuid.UUID(e.ID), UserId: e.UserID, LimitName: e.Reason.Info().Limit, Reason: e.Reason,
				Position: e.Position, Since: e.Since, Priority: e.Priority,
				EstimatedCredits: credits(e.Estimate), Source: e.Source, Namespace: e.Namespace, Name: e.Name,
			}
		}
		out.Levels[i] = level
	}
	return out
}
