// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"context"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// stuckPage is how many rows one look brings.
const stuckPage = 500

// Stuck counts the admissions that seem stuck, by reason; every reason is there. It reads page after page to the end.
func (s *Service) Stuck(ctx context.Context) (map[quota.Stuck]int, error) {
	counts := map[quota.Stuck]int{}
	for _, reason := range quota.StuckReasons {
		counts[reason] = 0
	}
	for at, after := (time.Time{}), (quota.AdmissionID{}); ; {
		page, err := s.store.StuckAdmissions(ctx, "", at, after, stuckPage)
		if err != nil {
			return nil, err
		}
		for _, adm := range page {
			if adm.Stuck != "" {
				counts[adm.Stuck]++
			}
		}
		if len(page) < stuckPage {
			return counts, nil
		}
		last := page[len(page)-1]
		at, after = last.AdmittedAt, last.ID
	}
}
