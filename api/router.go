package api

import "net/http"

// router is a ServeMux that knows its routes, so that a test can hold the document to them.
type router struct {
	http.ServeMux
	patterns []string
}

// Handle registers h, as ServeMux does.
func (m *router) Handle(pattern string, h http.Handler) {
	m.patterns = append(m.patterns, pattern)
	m.ServeMux.Handle(pattern, h)
}

// HandleFunc registers h, as ServeMux does.
func (m *router) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	m.Handle(pattern, http.HandlerFunc(h))
}

// Routes returns the patterns of everything that is served here but the page: those of the
// muxes, and the WebSocket, the ack links and the images, which are served before them.
func (a *API) Routes() []string {
	all := append([]string{}, a.mux.patterns...)
	all = append(all, a.plain.patterns...)
	return append(all, http.MethodGet+" "+livePath, http.MethodGet+" "+ackPath, http.MethodPost+" "+ackPath, http.MethodGet+" "+imagePath)
}
