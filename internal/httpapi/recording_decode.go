// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// maxItems bounds the uses in a batch.
const maxItems = 1000

// item is one use of a request, or what is wrong with it.
type item struct {
	req metering.RecordRequest
	err error
}

func broken(err error) item { return item{err: err} }

// UnmarshalJSON refuses unknown fields.
func (b *UsageRecord) UnmarshalJSON(data []byte) error {
	type plain UsageRecord
	return strict(data, (*plain)(b))
}

// UnmarshalJSON refuses unknown fields.
func (b *ReverseRequest) UnmarshalJSON(data []byte) error {
	type plain ReverseRequest
	return strict(data, (*plain)(b))
}

// UnmarshalJSON refuses unknown fields.
func (b *AdjustmentRequest) UnmarshalJSON(data []byte) error {
	type plain AdjustmentRequest
	return strict(data, (*plain)(b))
}

// parseBatch reads each item of an array.
func parseBatch(body []byte, parse func([]byte) item) ([]item, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, malformed("a batch must be an array")
	}
	if len(raw) == 0 || len(raw) > maxItems {
		return nil, invalid("a batch must have 1 to %d items, this one has %d", maxItems, len(raw))
	}
	items := make([]item, len(raw))
	for i := range raw {
		items[i] = parse(raw[i])
	}
	return items, nil
}

// parseOne reads the only use of a request, whose key is in the header.
func parseOne(key string, data []byte) item {
	if err := checkKey(key); err != nil {
		return broken(err)
	}
	var b UsageRecord
	if err := json.Unmarshal(data, &b); err != nil {
		return broken(undecodable(err))
	}
	if b.Key != "" {
		return broken(invalid("key is for the items of a batch; a single use is named by the header Idempotency-Key"))
	}
	b.Key = key
	return parseUse(&b)
}

// parseItem reads an item of a batch, which has its key in it.
func parseItem(data []byte) item {
	var b UsageRecord
	if err := json.Unmarshal(data, &b); err != nil {
		return broken(undecodable(err))
	}
	if b.Key == "" {
		return broken(invalid("key is required: an item of a batch is named by it"))
	}
	it := parseUse(&b)
	if err := quota.CheckKey(b.Key); err != nil {
		it.err = invalid("key: %v", err)
	}
	return it
}

// parseUse reads a use whose key is known.
func parseUse(b *UsageRecord) item {
	it := item{req: metering.RecordRequest{
		UserID: b.UserId, Key: b.Key, FileSize: int64(b.FileSizeBytes), Tokens: int64(b.Tokens), Currency: b.Currency,
		Metadata: b.Metadata,
		Use:      quota.Use{Type: b.UsageType, Quantity: 1},
	}}
	it.err = cmp.Or(checkUserID(b.UserId), parseMeasures(b, &it.req.Use))
	it.req.BodyHash = hashOfUse(&it.req)
	it.req.Same = sameUse(it.req, false)
	return it
}

// hashOfUse is made of what the use means, not of how it is spelled: that tells two with one key apart.
func hashOfUse(r *metering.RecordRequest) []byte {
	return hashOf("record", r.UserID, r.Use, r.FileSize, r.Tokens, r.Currency, r.Metadata)
}

// sameUse tells a use that is sent again in other words, which its hash does not see through: no metadata is as good as
// empty metadata, and a CloudEvent is the same one with another time, whatever its time was when it was recorded.
func sameUse(r metering.RecordRequest, cloudEvent bool) func([]byte, time.Time) bool {
	return func(hash []byte, occurredAt time.Time) bool {
		instants, metadata := []time.Time{r.Use.OccurredAt}, []map[string]string{r.Metadata}
		if cloudEvent {
			instants = []time.Time{{}, occurredAt.UTC()}
		}
		if len(r.Metadata) == 0 {
			metadata = []map[string]string{nil, {}}
		}
		for _, r.Use.OccurredAt = range instants {
			for _, r.Metadata = range metadata {
				if bytes.Equal(hash, hashOfUse(&r)) {
					return true
				}
			}
		}
		return false
	}
}

func parseMeasures(b *UsageRecord, use *quota.Use) (err error) {
	if b.UsageType == "" {
		return invalid("usage_type is required")
	}
	if b.Quantity != nil {
		use.Quantity = int64(*b.Quantity)
	}
	if use.Quantity < 1 || use.Quantity > quota.MaxQuantity {
		return invalid("quantity: %d must be between 1 and %d", use.Quantity, quota.MaxQuantity)
	}
	if b.DurationSeconds != "" {
		if use.Audio, err = b.DurationSeconds.milliseconds("duration_seconds", 0, quota.MaxAudio); err != nil {
			return err
		}
	}
	if b.Credits != "" {
		given, err := parseCredits(b.Credits)
		if err != nil {
			return err
		}
		use.Credits = &given
	}
	if b.Cost != "" {
		cost, err := quota.ParseMoney(string(b.Cost))
		if err != nil {
			return invalid("cost: %s must be between 0 and 999999999.999999, with at most 6 decimals and no exponent",
				b.Cost.short())
		}
		use.Cost = &cost
	}
	if b.OccurredAt != "" {
		at, err := time.Parse(time.RFC3339, b.OccurredAt)
		if err != nil {
			return invalid("occurred_at: %.40q must be an instant as in RFC 3339, such as 2026-03-14T12:00:00Z",
				b.OccurredAt)
		}
		use.OccurredAt = at.UTC().Truncate(time.Microsecond)
	}
	return nil
}

func parseCredits(n Number) (quota.Credits, error) {
	c, err := quota.ParseMoney(string(n)) // the same grammar; a thousandth of a credit is a whole number of units
	if err != nil || c%1000 != 0 || quota.Credits(c/1000) > quota.MaxRecordCredits/(quota.Credit/1000) {
		return 0, invalid("credits: %s must be between 0 and %s, with at most %d decimals and no exponent", n.short(),
			quota.MaxRecordCredits, maxDecimals)
	}
	return quota.Credits(c/1000) * (quota.Credit / 1000), nil
}

func parseAdjustment(key string, b *AdjustmentRequest) (metering.AdjustRequest, error) {
	req := metering.AdjustRequest{UserID: b.UserId, Key: key, Reason: b.Reason}
	if err := cmp.Or(checkKey(key), checkUserID(b.UserId)); err != nil {
		return req, err
	}
	if b.Credits == "" {
		return req, invalid("credits is required")
	}
	var err error
	if req.Credits, err = parseCredits(b.Credits); err != nil {
		return req, err
	}
	req.BodyHash = hashOf("adjust", req.UserID, req.Credits, req.Reason)
	return req, nil
}

// hashOf is a hash of values that JSON tells apart; maps are in order there.
func hashOf(values ...any) []byte {
	data, err := json.Marshal(values)
	if err != nil {
		panic(fmt.Sprintf("a decoded request can be encoded: %v", err))
	}
	sum := sha256.Sum256(data)
	return sum[:]
}
