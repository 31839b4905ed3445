// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// An array reads back as what was encoded, and pgx encodes it to the same.
func TestArraysAreWhatPgxMakesOfThem(t *testing.T) {
	t.Parallel()
	noon, old := time.Date(2026, 3, 29, 12, 0, 0, 123456789, time.UTC), time.Time{}
	for _, tc := range []struct {
		oid    uint32
		values any
	}{
		{pgtype.UUIDArrayOID, [][16]byte{{1, 2}, {}}},
		{pgtype.UUIDArrayOID, []*[16]byte{nil, {3}}},
		{pgtype.Int8ArrayOID, []int64{0, -1, 1 << 60}},
		{pgtype.Int8ArrayOID, []*int64{nil, new(int64(7))}},
		{pgtype.Int4ArrayOID, []int32{-5, 1 << 30}},
		{pgtype.Int4ArrayOID, []*int32{nil, new(int32(7))}},
		{pgtype.Int2ArrayOID, []int16{1, -2}},
		{pgtype.BoolArrayOID, []bool{true, false}},
		{pgtype.BoolArrayOID, []*bool{nil, new(true)}},
		{pgtype.TextArrayOID, []string{"", "größer", `a"b,c\`}},
		{pgtype.TextArrayOID, []*string{nil, new("x")}},
		{pgtype.TimestamptzArrayOID, []time.Time{noon, old, noon.In(time.FixedZone("", -7*60*60))}},
		{pgtype.TimestamptzArrayOID, []*time.Time{nil, &noon}},
		{pgtype.DateArrayOID, []time.Time{noon, old, noon.AddDate(-40, 0, 0)}},
		{pgtype.ByteaArrayOID, [][]byte{nil, {}, {1, 2, 3}}},
		{pgtype.JSONBArrayOID, [][]byte{nil, []byte(`{"a": [1]}`)}},
		{pgtype.TextArrayOID, []string(nil)},
		{pgtype.JSONBArrayOID, [][]byte(nil)},
	} {
		ours, theirs := pgtype.NewMap(), pgtype.NewMap()
		registerArrays(ours)
		got, err := ours.Encode(tc.oid, pgtype.BinaryFormatCode, tc.values, []byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		want, err := theirs.Encode(tc.oid, pgtype.BinaryFormatCode, tc.values, []byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%T %v:\n%v, want\n%v", tc.values, tc.values, got, want)
		}
	}
	m := pgtype.NewMap()
	registerArrays(m)
	empty, err := m.Encode(pgtype.Int8ArrayOID, pgtype.BinaryFormatCode, []int64{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var back []int64
	if err := m.Scan(pgtype.Int8ArrayOID, pgtype.BinaryFormatCode, empty, &back); err != nil || back == nil {
		t.Errorf("an empty array reads back as %v, %v", back, err)
	}
}

func TestArraysAreNotBoxed(t *testing.T) { //nolint:paralleltest // it counts allocations
	m := pgtype.NewMap()
	registerArrays(m)
	values := make([][16]byte, 1000)
	buf := make([]byte, 0, 1<<16)
	if n := testing.AllocsPerRun(10, func() {
		if _, err := m.Encode(pgtype.UUIDArrayOID, pgtype.BinaryFormatCode, values, buf); err != nil {
			t.Error(err)
		}
	}); n > 3 {
		t.Errorf("an array of a thousand ids takes %v allocations", n)
	}
}
