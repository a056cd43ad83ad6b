package live

// After so many seconds over the bound the pace goes down, and after so many below it up again.
const (
	paceDownAfter = 2
	paceUpAfter   = 10
)

// pace bounds what all viewers together cost those who send: when more state frames are wanted in a
// second than most, everybody's come at 2 Hz, and then at 1. It is the tick loop's own.
type pace struct {
	most   int   // frames a second
	hz     uint8 // now
	wanted int   // frames in this second, had every client its turn in each tick
	over   int   // seconds in a row in which hz was too much
	below  int   // seconds in a row in which more would have done
}

func newPace(most int) pace { return pace{most: most, hz: ticksPerSecond} }

// want notes that there is something for c in tick n, once.
func (p *pace) want(c *client, n uint64) {
	if c.wantedAt != n {
		c.wantedAt = n
		p.wanted++
	}
}

// settle ends a second.
func (p *pace) settle() {
	fits := p.fits()
	p.wanted = 0
	switch {
	case fits < p.hz:
		p.over, p.below = p.over+1, 0
	case fits > p.hz:
		p.over, p.below = 0, p.below+1
	default:
		p.over, p.below = 0, 0
	}
	if p.over >= paceDownAfter || p.below >= paceUpAfter {
		p.hz, p.over, p.below = fits, 0, 0
	}
}

// fits returns the pace for what was wanted. One above the present must fit with a fifth to spare.
func (p *pace) fits() uint8 {
	for _, hz := range []uint8{ticksPerSecond, 2} {
		frames := p.wanted * int(hz) / ticksPerSecond
		if hz > p.hz {
			frames += frames / 4
		}
		if frames <= p.most {
			return hz
		}
	}
	return 1
}

// retune tells the client how often frames come now, when that is not what it was told. The caller
// holds mu.
func (c *client) retune(why string) {
	if hz := min(c.hz, c.pace); hz != c.toldHz {
		c.toldHz = hz
		c.replyLocked(rateFrame(hz, why))
	}
}

// paced takes over the pace of all. The caller holds mu.
func (c *client) paced(hz uint8) {
	why := "fewer viewers"
	if hz < c.pace {
		why = "many viewers"
	}
	c.pace = hz
	c.retune(why)
}
