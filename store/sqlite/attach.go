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
	"strconv"

	"modernc.org/sqlite"

	"muster"
	"muster/devices/query"
)

// queriers is how many queries of the language run at once; more wait for their context.
const queriers = 4

// openQuery opens a pool on dir/control.db whose connections see telemetry.db as well,
// under the name telemetry, with a function that reads its latest values:
//
//	latest_value(latest.vals, key, want)
//
// It is the newest value of key as a number when want is 'number' (true and false are
// 1 and 0), as a text when it is 'text', not NULL when it is 'any'; NULL when there is
// none or it is of another kind.
//
// The pool stands apart because both files have a table device: only its users say
// main.device. A connection is made when it is needed, and one that is made before
// telemetry.db is there does not see it.
func openQuery(dir string) (*sql.DB, error) {
	path, err := filepath.Abs(filepath.Join(dir, "control.db"))
	if err != nil {
		return nil, fmt.Errorf("find the data directory: %w", err)
	}
	uri := fileURI(path, url.Values{
		"_busy_timeout": {strconv.FormatInt(busyTimeout.Milliseconds(), 10)},
		"_dqs":          {"0"},
		"_pragma":       {"cache_size(-4096)"},
		"_query_only":   {"1"},
	})
	d := &sqlite.Driver{}
	err = d.RegisterFunction("latest_value", &sqlite.FunctionImpl{
		NArgs: 3, Deterministic: true, VolatileArgs: true, // nothing of the arguments is kept
		Scalar: func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) { return latestValue(args) },
	})
	if err != nil {
		return nil, fmt.Errorf("register latest_value: %w", err)
	}
	db := sql.OpenDB(connector{d, uri, filepath.Join(filepath.Dir(path), "telemetry.db")})
	db.SetMaxOpenConns(queriers)
	db.SetMaxIdleConns(queriers)
	return db, nil
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
