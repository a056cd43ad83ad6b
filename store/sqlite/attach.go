package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path/filepath"

	"modernc.org/sqlite"

	"muster"
	"muster/devices/query"
)

// readWithTelemetry opens a pool on control.db whose connections see the telemetry.db
// at path as well, under the name telemetry, with a function that reads its latest
// values:
//
//	latest_value(latest.vals, key, want)
//
// It is the newest value of key as a number when want is 'number' (true and false are
// 1 and 0), as a text when it is 'text', not NULL when it is 'any'; NULL when there is
// none or it is of another kind. A connection that is opened before telemetry.db is
// there does not see it.
func readWithTelemetry(uri, path string) (*sql.DB, error) {
	d := &sqlite.Driver{}
	err := d.RegisterFunction("latest_value", &sqlite.FunctionImpl{
		NArgs: 3, Deterministic: true, VolatileArgs: true, // nothing of the arguments is kept
		Scalar: func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) { return latestValue(args) },
	})
	if err != nil {
		return nil, fmt.Errorf("register latest_value: %w", err)
	}
	return sql.OpenDB(connector{d, uri, path}), nil
}

// connector opens connections by a driver of our own, since what is registered with the
// package's is there for the whole process.
type connector struct {
	driver    *sqlite.Driver
	uri       string
	telemetry string // the path of telemetry.db
}

func (c connector) Driver() driver.Driver { return c.driver }

// Connect implements driver.Connector.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.driver.Open(c.uri)
	if err != nil {
		return nil, fmt.Errorf("open a connection: %w", err)
	}
	if err := c.attach(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (c connector) attach(ctx context.Context, conn driver.Conn) error {
	if _, err := os.Stat(c.telemetry); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	x, ok := conn.(driver.ExecerContext)
	if !ok {
		return errors.New("the driver's connections execute nothing")
	}
	// mode=rw makes no file; that nothing is written the pool's query_only sees to.
	uri := fileURI(c.telemetry, url.Values{"mode": {"rw"}})
	if _, err := x.ExecContext(ctx, "ATTACH DATABASE ? AS telemetry", []driver.NamedValue{{Ordinal: 1, Value: uri}}); err != nil {
		return fmt.Errorf("attach %s: %w", filepath.Base(c.telemetry), err)
	}
	return nil
}

func latestValue(args []driver.Value) (driver.Value, error) {
	if args[0] == nil {
		return nil, nil
	}
	vals, ok := args[0].([]byte)
	key, okKey := args[1].(string)
	want, okWant := args[2].(string)
	if !ok || !okKey || !okWant {
		return nil, errors.New("latest_value takes latest.vals, a key, and number, text or any")
	}
	l, err := findLatest(vals, key)
	if err != nil {
		return nil, err
	}
	switch {
	case l.Kind == query.Numeric && want == "number":
		return l.Num, nil
	case l.Kind == query.Textual && want == "text":
		return l.Text, nil
	case l.Kind != query.Absent && want == "any":
		return int64(1), nil
	}
	return nil, nil
}

// findLatest returns the newest value of key in what appendLatest wrote, of equally new
// ones the last. Holes count for nothing.
func findLatest(b []byte, key string) (query.Leaf, error) {
	if len(b) == 0 || b[0] != latestVersion {
		return query.Leaf{}, errLatest
	}
	var found query.Leaf
	newest := muster.Micros(math.MinInt64)
	r := latestReader{b: b[1:]}
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		kind := muster.ValueKind(r.take(1)[0])
		mine := string(r.bytes()) == key
		at := muster.Micros(r.varint())
		at = min(at, at+muster.Micros(r.varint()))
		if kind == muster.JSON {
			if text := r.bytes(); mine && at >= newest {
				found, newest = query.LeafOf(string(text)), at
			}
			continue
		}
		num := math.Float64frombits(binary.BigEndian.Uint64(r.take(8)))
		if mine && at >= newest && !math.IsNaN(num) {
			found, newest = query.Leaf{Kind: query.Numeric, Num: num}, at
		}
	}
	if r.bad || len(r.b) > 0 {
		return query.Leaf{}, errLatest
	}
	return found, nil
}
