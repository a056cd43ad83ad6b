package sim

import (
	"net/url"
	"strings"

	"muster"
)

// BaseURL returns what the paths of a server's HTTP listener are put behind: of host:port, or of an
// http or https URL. Invalid for anything else.
func BaseURL(addr string) (string, error) {
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	u, err := url.Parse(addr)
	switch {
	case err != nil:
		return "", muster.Errorf(muster.Invalid, "the address of the HTTP listener cannot be read: host:port and http://host:port are possible")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", muster.Errorf(muster.Invalid, "the address of the HTTP listener is not host:port, http://host:port or https://host:port")
	}
	return u.Scheme + "://" + u.Host + strings.TrimRight(u.Path, "/"), nil
}
