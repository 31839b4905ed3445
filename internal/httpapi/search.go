// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reports"
)

// ListAdmissions implements GET /api/v1/admissions.
func (s *server) ListAdmissions(
	ctx context.Context, r ListAdmissionsRequestObject,
) (ListAdmissionsResponseObject, error) {
	user := r.Params.UserId
	switch {
	case r.Params.Stuck:
		return s.listStuckAdmissions(ctx, &r.Params)
	case user == "":
		return nil, invalid("user_id is required, unless stuck is true")
	}
	if err := s.mayUser(ctx, user); err != nil {
		return nil, err
	}
	limit, err := pageLimit(r.Params.Limit)
	if err != nil {
		return nil, err
	}
	filter := reports.AdmissionFilter{States: []quota.State{quota.Queued, quota.Admitted}, Reason: r.Params.Reason}
	if state := quota.State(r.Params.State); state != "" {
		if !slices.Contains(reports.Uncharged, state) {
			return nil, invalid("state: %.64q must be one of %s", state, listed(reports.Uncharged))
		}
		filter.States = []quota.State{state}
	}
	if reason := r.Params.Reason; reason != "" && reason.Info().Status == 0 {
		return nil, invalid("reason: %.64q is no reason that work is refused or waits for", reason)
	}
	before, err := parseNumberCursor(cursorAdmissions, r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	page, next, err := s.search.Admissions(ctx, user, filter, before, limit)
	if err != nil {
		return nil, err
	}
	return admissionPage(user, page, numberCursor(cursorAdmissions, next)), nil
}

// listStuckAdmissions is ListAdmissions with stuck, of one user or of all.
func (s *server) listStuckAdmissions(
	ctx context.Context, p *ListAdmissionsParams,
) (ListAdmissionsResponseObject, error) {
	var err error
	if p.UserId == "" {
		err = s.mayAll(ctx, access.Resource)
	} else {
		err = s.mayUser(ctx, p.UserId)
	}
	if err != nil {
		return nil, err
	}
	if p.State != "" || p.Reason != "" {
		return nil, invalid("state, reason: neither goes with stuck, state is %.64q and reason %.64q", p.State,
			p.Reason)
	}
	limit, err := pageLimit(p.Limit)
	if err != nil {
		return nil, err
	}
	behind, err := parsePlaceCursor(cursorStuck, p.Cursor)
	if err != nil {
		return nil, err
	}
	page, next, err := s.search.StuckAdmissions(ctx, p.UserId, behind, limit)
	if err != nil {
		return nil, err
	}
	return admissionPage(p.UserId, page, placeCursor(cursorStuck, next)), nil
}

func admissionPage(user string, page []*ledger.Admission, next string) ListAdmissions200JSONResponse {
	out := ListAdmissions200JSONResponse{UserId: user, Admissions: make([]Admission, len(page)), NextCursor: next}
	for i := range page {
		out.Admissions[i] = admission(page[i])
	}
	return out
}

func listed[T ~string](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
	}
	return strings.Join(texts, ", ")
}

// ListUsageEvents implements GET /api/v1/usage/events.
func (s *server) ListUsageEvents(
	ctx context.Context, r ListUsageEventsRequestObject,
) (ListUsageEventsResponseObject, error) {
	user := r.Params.UserId
	if err := s.mayUser(ctx, user); err != nil {
		return nil, err
	}
	limit, err := pageLimit(r.Params.Limit)
	if err != nil {
		return nil, err
	}
	if err := checkPeriod(r.Params.Period); err != nil {
		return nil, err
	}
	period, behind, err := parseEventCursor(r.Params.Cursor)
	switch {
	case err != nil:
		return nil, err
	case behind == nil:
		period = r.Params.Period
	case r.Params.Period != nil && *r.Params.Period != *period:
		return nil, invalid("cursor: is of period %d, not of %d", *period, *r.Params.Period)
	}
	page, err := s.search.Events(ctx, user, period, behind, limit)
	if err != nil {
		return nil, err
	}
	out := ListUsageEvents200JSONResponse{
		UserId:     user,
		Period:     page.Period,
		Events:     make([]UsageEvent, len(page.Events)),
		NextCursor: eventCursor(page.Period, page.Next),
	}
	for i, e := range page.Events {
		out.Events[i] = usageEvent(e)
	}
	return out, nil
}

// GetUsageStats implements GET /api/v1/usage/stats.
func (s *server) GetUsageStats(
	ctx context.Context, r GetUsageStatsRequestObject,
) (GetUsageStatsResponseObject, error) {
	user := r.Params.UserId
	if err := checkUserID(user); err != nil {
		return nil, err
	}
	months := defaultHistory
	if given := r.Params.Months; given != nil {
		months = int(*given)
	}
	if months < 1 || months >= reports.MaxHistory {
		return nil, invalid("months: %d must be between 1 and %d", months, reports.MaxHistory-1)
	}
	if err := s.may(ctx, user); err != nil {
		return nil, err
	}
	stats, err := s.history.Stats(ctx, user, months)
	if err != nil {
		return nil, err
	}
	out := GetUsageStats200JSONResponse{
		UserId:                   user,
		UsedCredits:              credits(stats.Used),
		Amounts:                  amounts(stats.Amounts),
		OpenPeriod:               period(&stats.Open),
		OpenPeriodElapsedPercent: int32(100 * stats.Lasted / stats.Lasts),
		ClosedPeriods:            int32(len(stats.Closed)),
		AsOf:                     stats.Now,
	}
	if len(stats.Closed) > 0 {
		out.AverageCredits, out.Most, out.Least = credits(stats.Average), period(stats.Most), period(stats.Least)
	}
	return out, nil
}

// ListAuditEntries implements GET /api/v1/audit.
func (s *server) ListAuditEntries(
	ctx context.Context, r ListAuditEntriesRequestObject,
) (ListAuditEntriesResponseObject, error) {
	if err := s.mayAll(ctx, access.ResourceAudit); err != nil {
		return nil, err
	}
	limit, err := pageLimit(r.Params.Limit)
	if err != nil {
		return nil, err
	}
	filter, err := auditFilter(&r.Params)
	if err != nil {
		return nil, err
	}
	before, err := parseNumberCursor(cursorAudit, r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	page, err := s.search.Audit(ctx, filter, before, limit)
	if err != nil {
		return nil, err
	}
	out := ListAuditEntries200JSONResponse{Entries: make([]AuditEntry, len(page.Entries)),
		NextCursor: numberCursor(cursorAudit, page.Next)}
	for i := range page.Entries {
		e := &page.Entries[i]
		out.Entries[i] = AuditEntry{
			Id:         e.ID,
			At:         e.At,
			Actor:      e.Actor,
			Action:     string(e.Action),
			ObjectKind: e.ObjectKind,
			ObjectName: e.Object,
			UserId:     e.UserID,
			Before:     e.Before,
			After:      e.After,
			Reason:     e.Reason,
		}
	}
	return out, nil
}

func auditFilter(p *ListAuditEntriesParams) (reports.AuditFilter, error) {
	f := reports.AuditFilter{
		UserID:     p.UserId,
		ObjectKind: string(p.ObjectKind),
		ObjectName: p.ObjectName,
		Action:     quota.AuditAction(p.Action),
		Actor:      p.Actor,
		Since:      p.Since,
		Until:      p.Until,
	}
	kinds := quota.AuditKinds()
	switch {
	case f.UserID != "" && f.ObjectKind != "":
		return f, invalid("user_id, object_kind: only one of them may be given, user_id is %.64q and object_kind %.64q",
			f.UserID, f.ObjectKind)
	case (f.ObjectKind == "") != (f.ObjectName == ""):
		return f, invalid(
			"object_kind, object_name: both or none must be given, object_kind is %.64q and object_name %.64q",
			f.ObjectKind,
			f.ObjectName,
		)
	case f.ObjectKind != "" && !slices.Contains(kinds, f.ObjectKind):
		return f, invalid("object_kind: %.64q must be one of %s", f.ObjectKind, listed(kinds))
	case f.Action != "" && f.Action.Kind() == "":
		return f, invalid("action: %.64q must be one of %s", f.Action, listed(quota.AuditActions()))
	case !f.Until.IsZero() && !f.Since.Before(f.Until):
		return f, invalid(
			"until: %s must be behind since, %s",
			f.Until.Format(time.RFC3339),
			f.Since.Format(time.RFC3339),
		)
	case f.UserID != "":
		return f, checkUserID(f.UserID)
	}
	return f, nil
}

// numberCursor says behind which number a page begins; there is none behind 0.
func numberCursor(kind string, last int64) string {
	if last == 0 {
		return ""
	}
	return pageCursor(kind, strconv.FormatInt(last, 10))
}

func parseNumberCursor(kind, text string) (int64, error) {
	last, err := parsePageCursor(kind, text)
	if last == "" || err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(last, 10, 64)
	if err != nil || n < 1 || numberCursor(kind, n) != text {
		return 0, notACursor(text)
	}
	return n, nil
}

func notACursor(text string) error {
	return problem(http.StatusBadRequest, "malformed-request", "cursor: %.64q is not the next_cursor of a page", text)
}

// eventCursor says in which period, behind which event, a page begins.
func eventCursor(period int64, behind *reports.EventPlace) string {
	if behind == nil {
		return ""
	}
	return pageCursor(cursorEvents, fmt.Sprintf("%d.%d.%x", period, behind.Seq, [16]byte(behind.ID)))
}

func parseEventCursor(text string) (period *int64, behind *reports.EventPlace, err error) {
	last, err := parsePageCursor(cursorEvents, text)
	if last == "" || err != nil {
		return nil, nil, err
	}
	parts := strings.Split(last, ".")
	if len(parts) != 3 {
		return nil, nil, notACursor(text)
	}
	no, err1 := strconv.ParseInt(parts[0], 10, 64)
	seq, err2 := strconv.ParseInt(parts[1], 10, 64)
	id, err3 := uuid.Parse(parts[2])
	behind = &reports.EventPlace{Seq: seq, ID: quota.EventID(id)}
	if err1 != nil || err2 != nil || err3 != nil || no < 0 || no > maxPeriod || eventCursor(no, behind) != text {
		return nil, nil, notACursor(text)
	}
	return &no, behind, nil
}
