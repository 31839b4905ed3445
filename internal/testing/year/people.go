// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package year

import (
	"math/rand/v2"
	"strconv"

	"github.com/cantonesescribe/usage-operator/internal/testing/shapes"
)

// person is a user of the year.
type person struct {
	index          int
	id, plan, zone string
	team           string
	since, given   int
	upgrades       int
	suspended      int
	exports        bool
	r              *rand.Rand
	// minutes of audio by day.
	minutes []float64
}

const (
	free = "free"
	mina = "mina"
	ada  = "ada"
)

// never is a day that does not come.
const never = -1

// sizes are the users and teams of each plan, and what the plan includes.
var sizes = []struct {
	plan     string
	users    int
	included float64
}{{free, 48, 30}, {"starter", 30, 300}, {"pro", 18, 1500}, {"enterprise", 4, 12_000}}

// stars are those who are known by name; all others have made-up ones.
var stars = map[string][]person{
	free: {{id: "olga"}, {id: "lok"}, {id: "wong.siu-ming", team: "newsroom"}},
	"starter": {{id: mina, zone: "Asia/Hong_Kong", team: "newsroom", given: 61}, {id: "tam.siu-man"},
		{id: "chan.tai-man", zone: "Asia/Hong_Kong", team: "newsroom"}, {id: "grace"}},
	"pro": {{id: "petra"}, {id: ada, team: "studio"}},
}

// families and given names of those who are made up.
var (
	families = []string{"au", "chan", "cheung", "fong", "ho", "ip", "kwok", "lam",
		"lau", "leung", "ng", "poon", "tse", "yip"}
	names = []string{"ka-yan", "wing", "tsz-ching", "chi-ho", "mei", "hoi-lam", "kit", "sze", "yat-long", "suet"}
)

// population makes everybody, always the same.
func population() []*person {
	kinds := shapes.All()
	var all []*person
	for _, size := range sizes {
		for i := range size.users {
			n := len(all)
			p := &person{id: families[n%len(families)] + "." + names[n/len(families)%len(names)]}
			if i < len(stars[size.plan]) {
				*p = stars[size.plan][i]
			}
			p.index, p.upgrades, p.suspended, p.r = n, never, never, rand.New(rand.NewPCG(15, uint64(n)))
			p.plan, p.exports = size.plan, size.plan != free
			share := 0.15 + 0.75*p.r.Float64()
			shape := kinds[p.r.IntN(len(kinds))]
			switch {
			case p.id == mina, p.id == ada, p.id == "chan.tai-man":
				shape, share = kinds[1], 0.84
			case p.id == "lok":
				shape, share = kinds[0], 1.6
			case p.id == "petra", p.id == "tam.siu-man":
				p.plan, shape = "", kinds[1] // as their objects declare
			case p.id == "grace":
				p.suspended = Days - 3
			case i%11 == 5:
				share *= 1.6 // more than the plan includes
			}
			if n%13 == 7 && p.team == "" {
				p.given = 90
			}
			if i >= len(stars[size.plan]) {
				p.team = map[int]string{4: "sports-and-weather", 6: "podcasts", 8: "newsroom", 11: "studio"}[n%12]
				if n%3 == 0 {
					p.since = p.r.IntN(Days - 30) // comes in the course of the year
				}
				if size.plan == "starter" && n%7 == 3 {
					p.upgrades = p.since + (Days-p.since)/2
				}
			}
			p.minutes = spread(p.r, shape, size.included*share/30)
			all = append(all, p)
		}
	}
	return all
}

// spread makes the minutes of each day, so many on the average.
func spread(r *rand.Rand, shape shapes.Shape, mean float64) []float64 {
	use := shape.Days(r, Days)
	sum := int64(0)
	for _, units := range use {
		sum += units
	}
	minutes := make([]float64, Days)
	for d, units := range use {
		minutes[d] = float64(units) * mean * Days / float64(sum)
	}
	return minutes
}

// files are the lengths, in minutes, of what somebody has transcribed on a day: one or a few.
func (p *person) files(d int) []float64 {
	if d < p.since || p.suspended != never && d >= p.suspended || p.minutes[d] < 0.2 {
		return nil
	}
	n := 1
	if p.minutes[d] > 10 {
		n += p.r.IntN(3)
	}
	lengths := make([]float64, n)
	for i := range lengths {
		lengths[i] = min(p.minutes[d]/float64(n), 300)
	}
	return lengths
}

// asks says whether somebody asks for a slot before, as all on the free plan do, who would get more than there is
// otherwise, and the others more often lately.
func (p *person) asks(d int) bool { return p.plan == free || d > Days-60 && p.r.IntN(3) == 0 }

func (p *player) named(id string) *person {
	for _, who := range p.people {
		if who.id == id {
			return who
		}
	}
	panic("nobody is called " + strconv.Quote(id))
}
