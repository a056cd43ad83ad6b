package archtest

// Rules are the laws that a tree is checked against.
type Rules struct {
	Rooms   []Room      // a package belongs to the room with the longest matching Dir
	Beside  []Beside    // imports between rooms of one floor
	Homes   []Home      // a library belongs to the home with the longest matching Import
	Closed  []Closed    // what whole floors may not import
	TestKit []string    // import path prefixes that no product code may import
	Sizes   Sizes       // how long files and functions may be
	Long    []Exception // what may be longer
}

// Room is a directory with all below it.
type Room struct {
	Dir   string // "." is the root package alone
	Floor int
}

// Top is the floor of what stands beside the product (tests from outside,
// deployment, tools): it may import everything, and no room may import it.
const Top = 6

// Beside allows room From to import room To, on the same floor.
type Beside struct{ From, To, Reason string }

// Home names the only directories whose product code may import a library. None
// means that no product code may.
type Home struct {
	Import string // an import path and all below it
	Dirs   []string
	Reason string
}

// Closed forbids imports to every room of a floor.
type Closed struct {
	Floor   int
	Imports []string // exact import paths; "*" stands for all that is neither ours nor the standard library
	Reason  string
}

// Sizes are limits in lines. Generated files have none.
type Sizes struct {
	File, Func int // product code
	TestFunc   int // test code; test files have no limit
}

// Exception lets a file ("a/b.go") or a function ("a/b.go Type.Method") be longer
// than the limit. One that is not needed is a breach, so that the list stays true.
type Exception struct{ Name, Reason string }

// House returns Muster's own rules.
func House() Rules {
	return Rules{
		Rooms:   rooms(),
		Beside:  beside(),
		Homes:   homes(),
		Closed:  closed(),
		TestKit: testKit(),
		Sizes:   Sizes{File: 600, Func: 80, TestFunc: 150},
		Long:    nil,
	}
}

func rooms() []Room {
	return []Room{
		{".", 0},
		{"internal", 1},
		{"accounts", 2},
		{"alerts", 2},
		{"audit", 2},
		{"cache", 2},
		{"devices", 2},
		{"feed", 2},
		{"firmware", 2},
		{"ingest", 2},
		{"notify", 2},
		{"once", 2},
		{"tasks", 2},
		{"traffic", 2},
		{"api", 3},
		{"broker", 3},
		{"bus", 3},
		{"client", 3}, // generated; speaks to a server from outside
		{"dashboard", 3},
		{"firmware/blob", 3}, // one package per image backend
		{"firmware/delta", 3},
		{"firmware/depot", 3},
		{"firmware/deliver", 3}, // one package per way to devices
		{"firmware/s3", 3},
		{"notify/channeltest", 3}, // the kit that every channel passes
		{"notify/chat", 3},        // one package per channel
		{"notify/email", 3},
		{"notify/mqtt", 3},
		{"notify/webhook", 3},
		{"oidc", 3},
		{"sim", 3},
		{"store", 3}, // sqlite, postgres and what they share are one room
		{"server", 4},
		{"cmd", 5},
		{"bench", Top},
		{"deploy", Top},
		{"docs", Top},
		{"e2e", Top},
		{"scripts", Top},
		{"tools", Top}, // a module of its own
	}
}

func beside() []Beside {
	return []Beside{
		{"firmware", "audit", auditReason},
		{"firmware", "feed", feedReason},
		{"firmware", "devices", "a rollout chooses its devices by the registry's query language"},
		{"firmware/delta", "firmware/blob", "patches are kept as images are"},
		{"firmware/depot", "firmware/blob", "a server's disk is the cache of the bucket"},
		{"firmware/depot", "firmware/s3", "the bucket"},
		{"sim", "firmware/delta", "virtual devices apply patches as devices do"},
		{"alerts", "devices", "a rule selects the devices it watches"},
		{"alerts", "notify", "an alert that fires or resolves is a notification"},
		{"accounts", "audit", auditReason},
		{"devices", "audit", auditReason},
		{"firmware", "audit", auditReason},
		{"notify", "audit", auditReason},
		{"tasks", "audit", auditReason},
		{"accounts", "devices", "the selector of an API key is in the query language"},
		{"accounts", "feed", feedReason},
		{"devices", "cache", "the compiled selectors of API keys are kept"},
		{"devices", "feed", feedReason},
		{"ingest", "feed", feedReason},
		{"notify", "feed", "a webhook is about events of the feed"},
		{"notify", "devices", "a webhook's filter is in the query language"},
		{"tasks", "feed", feedReason},
	}
}

// Why many rooms import one.
const (
	auditReason = "who makes a change notes it for the audit log"
	feedReason  = "who makes something happen notes it for the feed"
)

func homes() []Home {
	return []Home{
		{"github.com/mochi-mqtt/server/v2", []string{"broker/hazard"}, "sessions are ours (docs/adr/0006); the hazard tests attack the stock server to prove themselves"},
		{"github.com/mochi-mqtt/server/v2/packets", []string{"broker/wire", "sim"}, "the codec, behind guards, and for the virtual fleet"},
		{"github.com/nats-io", []string{"bus"}, "the log, pub/sub and leases can be replaced in one place"},
		{"github.com/jackc/pgx/v5", []string{"store/postgres"}, "each database has one driver"},
		{"modernc.org/sqlite", []string{"store/sqlite"}, "each database has one driver"},
		{"github.com/pressly/goose/v3", []string{"store"}, "schemas belong to the store"},
		{"github.com/gorilla/websocket", []string{"dashboard/live", "broker"}, "the live gateway, and MQTT over WebSocket"},
		{"github.com/danielgtaylor/huma/v2", []string{"api"}, "the third-party API is one room's"},
		{"github.com/maypok86/otter/v2", []string{"cache"}, "what is thrown out of a cache is decided in one place"},
		{"github.com/pquerna/otp", []string{"accounts"}, "second factors are one room's"},
		{"golang.org/x/crypto/argon2", []string{"accounts"}, "passwords are hashed in one place, so that how many at once is bounded"},
		{"github.com/coreos/go-oidc", []string{"oidc"}, "what an OpenID provider says is checked in one place"},
		{"golang.org/x/oauth2", []string{"oidc"}, "likewise"},
		{"github.com/boombuler/barcode", []string{"api"}, "pictures are for those who ask over HTTP"},
		{"github.com/nicholas-fedor/shoutrrr", []string{"notify/chat"}, "a chat service's URL is read in one place, and only with the tag shoutrrr"},
		{"github.com/wneessen/go-mail", []string{"notify/email"}, "one channel sends mail"},
		{"github.com/minio/minio-go/v7", []string{"firmware/s3"}, "one backend of images speaks S3"},
		{"github.com/alecthomas/kong", []string{"cmd"}, "flags are read in main only"},
		{"github.com/evanw/esbuild", []string{"tools"}, "the page is built beforehand and committed"},
		{"github.com/prometheus/prometheus", []string{"tools"}, "what is asked of Prometheus is read by its own parser, beforehand"},
	}
}

func closed() []Closed {
	return []Closed{
		{0, []string{"*"}, "the vocabulary is the standard library's only"},
		{1, []string{"*"}, "internal packages are the standard library's only"},
		{2, []string{"net/http", "database/sql"}, "the domain knows no HTTP and no SQL"},
	}
}

func testKit() []string {
	return []string{
		"testing",
		"github.com/google/go-cmp",
		"pgregory.net/rapid",
		"go.uber.org/goleak",
		"github.com/chromedp",
		"github.com/eclipse/paho.golang",
		"github.com/eclipse/paho.mqtt.golang",
		"github.com/emersion",
	}
}
