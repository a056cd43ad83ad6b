package query

import "muster"

const (
	// MaxLength is the longest query, in bytes.
	MaxLength = 2048
	// MaxTerms is the most terms in a query.
	MaxTerms = 64
	// MaxDepth is how deep parentheses and nots may be nested.
	MaxDepth = 16
)

// Expr is a parsed query. It is never changed after Parse and may be shared.
type Expr struct {
	Root Node // nil matches every device
}

// Node is one of *And, *Or, *Not and *Term.
type Node interface{ node() }

// And matches what all of its nodes match; it has at least two, none of them an *And.
type And struct{ Nodes []Node }

// Or matches what one of its nodes matches; it has at least two, none of them an *Or.
type Or struct{ Nodes []Node }

// Not matches what its node does not.
type Not struct{ Node Node }

// Term is one condition.
type Term struct {
	Field Field
	Path  []string // the key of Tag and Telemetry, the steps of Reported and Desired
	Op    Op
	Value Value
	Pos   int // where it begins in the text, in bytes
}

func (*And) node()  {}
func (*Or) node()   {}
func (*Not) node()  {}
func (*Term) node() {}

// Field says what of a device a term asks for.
type Field uint8

// The fields.
const (
	AnyText   Field = iota // id or name; always Contains
	ID                     // a text
	Name                   // a text
	Profile                // a text
	Parent                 // a text, empty without one
	Firmware               // a text, empty when it never reported one
	Notes                  // a text
	Group                  // the Value is a group's name
	Tag                    // Path[0] is the key; a text, or absent
	Status                 // the Value is a presence state or Silent
	Seen                   // the last packet's time, or never
	Created                // a time
	Telemetry              // Path[0] is the key; the latest value of it, or absent
	Reported               // Path leads into the reported twin, or to nothing
	Desired                // Path leads into the effective desired twin, or to nothing
	Converged              // a Bool
	Diverged               // the Value is a path, one of those that differ
	Lat                    // degrees, a Number; absent without a location
	Lon                    // likewise
	Has                    // the Value is one of the Has names
)

// Op compares. Ne is the negation of Eq also where there is nothing to compare; of
// something absent every other comparison is false.
type Op uint8

// The operators. Lt to Ge take numbers, times and, of ID and Name, texts.
const (
	Eq Op = iota
	Ne
	Lt
	Le
	Gt
	Ge
	Contains // without regard to ASCII case; the Value's Text is in lower case
)

// Kind says what a Value is.
type Kind uint8

// The kinds of value.
const (
	Any      Kind = iota // "*", with Eq and Ne: whatever is present, of texts that are not empty
	Text                 // Text, compared bytewise
	Prefix               // Text is how it begins, with Eq and Ne
	Number               // Num, never NaN or infinite
	Bool                 // Num is 1 for true and 0 for false
	Duration             // Micros is an age, at least 0
	Time                 // Micros is a time
)

// Value is what a term compares with.
type Value struct {
	Kind   Kind
	Text   string
	Num    float64
	Micros muster.Micros
}

// Silent is the Status of a device that is quiet, or offline for longer than its own
// rhythm; the others are the presence states.
const Silent = "silent"

// What Has can ask for.
const (
	HasParent     = "parent"
	HasChildren   = "children"
	HasTags       = "tags"
	HasLocation   = "location"
	HasNotes      = "notes"
	HasTwin       = "twin" // something is reported or desired
	HasCredential = "credential"
	HasConnection = "connection" // a session is open: online or quiet
)
