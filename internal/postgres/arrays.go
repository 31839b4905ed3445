// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"encoding/binary"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// arrayCodec encodes the columns of many rows. Of an array pgx asks each element anew how to encode it, for which it
// has to be allocated: that was a third of what the engine allocated.
type arrayCodec struct {
	*pgtype.ArrayCodec
}

// registerArrays has the map encode the arrays that batches send.
func registerArrays(m *pgtype.Map) {
	for _, oid := range []uint32{
		pgtype.UUIDArrayOID, pgtype.Int8ArrayOID, pgtype.Int4ArrayOID, pgtype.BoolArrayOID, pgtype.TextArrayOID,
		pgtype.TimestamptzArrayOID, pgtype.DateArrayOID, pgtype.ByteaArrayOID, pgtype.JSONBArrayOID,
	} {
		t, ok := m.TypeForOID(oid)
		if !ok {
			continue
		}
		if codec, ok := t.Codec.(*pgtype.ArrayCodec); ok {
			m.RegisterType(&pgtype.Type{Name: t.Name, OID: oid, Codec: arrayCodec{codec}})
		}
	}
}

// PlanEncode implements pgtype.Codec.
func (c arrayCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if plan := c.plan(oid, value); plan != nil && format == pgtype.BinaryFormatCode {
		return plan
	}
	return c.ArrayCodec.PlanEncode(m, oid, format, value)
}

func (c arrayCodec) plan(oid uint32, value any) pgtype.EncodePlan {
	element := c.ElementType.OID
	switch oid {
	case pgtype.UUIDArrayOID:
		return planOf(element, value, func(buf []byte, v [16]byte) []byte { return append(buf, v[:]...) })
	case pgtype.Int8ArrayOID:
		return planOf(element, value, appendInt64)
	case pgtype.Int4ArrayOID:
		return planOf(element, value, func(buf []byte, v int32) []byte { return appendInt32(buf, int(v)) })
	case pgtype.BoolArrayOID:
		return planOf(element, value, appendBool)
	case pgtype.TextArrayOID:
		return planOf(element, value, func(buf []byte, v string) []byte { return append(buf, v...) })
	case pgtype.TimestamptzArrayOID:
		return planOf(element, value, func(buf []byte, v time.Time) []byte {
			return appendInt64(buf, v.UnixMicro()-epoch.UnixMicro())
		})
	case pgtype.DateArrayOID:
		return planOf(element, value, appendDate)
	case pgtype.ByteaArrayOID:
		return planOfBytes(element, value, func(buf, v []byte) []byte { return append(buf, v...) })
	case pgtype.JSONBArrayOID:
		// The version of the format, then the text.
		return planOfBytes(element, value, func(buf, v []byte) []byte { return append(append(buf, 1), v...) })
	}
	return nil
}

// epoch is what PostgreSQL counts times from.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func appendInt32(buf []byte, v int) []byte {
	return binary.BigEndian.AppendUint32(buf, uint32(int32(v)))
}

func appendInt64(buf []byte, v int64) []byte { return binary.BigEndian.AppendUint64(buf, uint64(v)) }

func appendBool(buf []byte, v bool) []byte {
	if v {
		return append(buf, 1)
	}
	return append(buf, 0)
}

func appendDate(buf []byte, v time.Time) []byte {
	year, month, day := v.Date()
	const secondsADay = 24 * 60 * 60
	return appendInt32(buf, int((time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Unix()-epoch.Unix())/secondsADay))
}

// arrayPlan encodes a slice of type S, whose elements are NULL or of type T.
type arrayPlan[S ~[]E, E, T any] struct {
	element uint32
	// get returns nil for NULL, and put appends the others without their length.
	get func(e *E) *T
	put func(buf []byte, v T) []byte
}

// planOf returns how to encode a slice of T or of pointers to T; nil if the value is neither.
func planOf[T any](element uint32, value any, put func([]byte, T) []byte) pgtype.EncodePlan {
	switch value.(type) {
	case []T:
		return arrayPlan[[]T, T, T]{element, func(e *T) *T { return e }, put}
	case []*T:
		return arrayPlan[[]*T, *T, T]{element, func(e **T) *T { return *e }, put}
	}
	return nil
}

// planOfBytes is planOf for bytes, of which a nil slice is NULL.
func planOfBytes(element uint32, value any, put func(buf, v []byte) []byte) pgtype.EncodePlan {
	if _, ok := value.([][]byte); !ok {
		return nil
	}
	return arrayPlan[[][]byte, []byte, []byte]{element, func(e *[]byte) *[]byte {
		if *e == nil {
			return nil
		}
		return e
	}, put}
}

// Encode implements pgtype.EncodePlan: a header, then each element behind its length, which is -1 for NULL.
func (p arrayPlan[S, E, T]) Encode(value any, buf []byte) ([]byte, error) {
	values := value.(S) //nolint:forcetypeassert // what planOf has looked at
	if values == nil {
		return nil, nil
	}
	dimensions := min(len(values), 1)
	buf = appendInt32(buf, dimensions)
	nulls := len(buf)
	buf = appendInt32(appendInt32(buf, 0), int(p.element))
	if dimensions == 0 {
		return buf, nil
	}
	buf = appendInt32(appendInt32(buf, len(values)), 1)
	for i := range values {
		v := p.get(&values[i])
		if v == nil {
			buf[nulls+3] = 1
			buf = appendInt32(buf, -1)
			continue
		}
		at := len(buf)
		buf = p.put(append(buf, 0, 0, 0, 0), *v)
		binary.BigEndian.PutUint32(buf[at:], uint32(len(buf)-at-4))
	}
	return buf, nil
}
