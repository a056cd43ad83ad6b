package accounts

// Config is what accounts need besides their store. The zero Config does: what needs
// a missing part says so.
type Config struct {
	// URL returns how browsers reach the dashboard, without a slash at the end. Links
	// begin with a slash when it is nil.
	URL func() string
	// Sealer seals the secrets of second factors, which cannot be hashed. None can be
	// set up when it is nil.
	Sealer Sealer
	// CheckSelector returns Invalid for a text that is no device query. Every selector
	// is Invalid when it is nil.
	CheckSelector func(selector string) error
	// LinkByEmail lets SignInExternal link who has a verified e-mail to the user who
	// has it here.
	LinkByEmail bool
	// CreateUsers lets SignInExternal make users, with DefaultRole when the provider
	// says no role; viewer when that is empty.
	CreateUsers bool
	DefaultRole string
}

// Sealer encrypts and authenticates small secrets that must be read again. bind says
// what a secret is for: one that was sealed for something else does not open.
type Sealer interface {
	Seal(plain []byte, bind string) ([]byte, error)
	Open(sealed []byte, bind string) ([]byte, error)
}

func (c *Config) link(path, token string) string {
	base := ""
	if c.URL != nil {
		base = c.URL()
	}
	return base + path + token
}
