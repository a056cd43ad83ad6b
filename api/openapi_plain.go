package api

import (
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// liveOperation is the id of the WebSocket in the document.
const liveOperation = "live"

// plainOperations documents what is served beside huma.
func (a *API) plainOperations(doc *huma.OpenAPI) {
	text, object := &huma.Schema{Type: huma.TypeString}, &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
	status := &huma.Schema{
		Type: huma.TypeObject, Properties: map[string]*huma.Schema{"status": {Type: huma.TypeString, Examples: []any{"ok"}}}, Required: []string{"status"},
	}
	ready := &huma.Schema{Type: huma.TypeObject, Required: []string{"ready", "reasons"}, Properties: map[string]*huma.Schema{
		"ready":   {Type: huma.TypeBoolean},
		"reasons": {Type: huma.TypeArray, Items: doc.Components.Schemas.Schema(typeOf[Reason](), true, "")},
	}}
	plain := func(id, path, scope, summary string, answers map[int]*huma.Response) {
		op := &huma.Operation{
			OperationID: id, Method: http.MethodGet, Path: path, Tags: []string{"server"}, Summary: summary, Security: security(scope),
			Responses: map[string]*huma.Response{},
		}
		for code, answer := range answers {
			op.Responses[strconv.Itoa(code)] = answer
		}
		doc.AddOperation(op)
	}
	answer := func(words, kind string, s *huma.Schema) *huma.Response {
		return &huma.Response{Description: words, Content: map[string]*huma.MediaType{kind: {Schema: s}}}
	}
	plain("health", "/healthz", public, "The process is up", map[int]*huma.Response{200: answer("It is", "application/json", status)})
	plain("ready", "/readyz", public, "The server can do its work", map[int]*huma.Response{
		200: answer("It can", "application/json", ready), 503: answer("It cannot, for the reasons listed", "application/json", ready),
	})
	plain("metrics", "/metrics", public, "Figures for Prometheus", map[int]*huma.Response{200: answer("In its text format", "text/plain", text)})
	setup := answer("The link is unknown, was used, or has expired", "text/html", text)
	plain("redeem-setup", "/setup/{token}", public, "Sign in as admin with the one-time link of the first start", map[int]*huma.Response{
		303: {Description: "Signed in; go to the page"}, 401: setup, 404: setup, 410: setup, 429: setup, 503: setup,
	})
	doc.Paths["/setup/{token}"].Get.Parameters = []*huma.Param{{
		Name: "token", In: "path", Required: true, Description: "The link's token", Schema: &huma.Schema{Type: huma.TypeString},
	}}
	plain("get-openapi", "/api/openapi.json", public, "This document", map[int]*huma.Response{200: answer("OpenAPI 3.1", "application/json", object)})
	plain("get-asyncapi", "/api/asyncapi.json", public, "The MQTT side, as an AsyncAPI document", map[int]*huma.Response{200: answer("AsyncAPI 3.0", "application/json", object)})
	plain("get-docs", docsPath, public, "This document as a page for people", map[int]*huma.Response{200: answer("The page, which loads nothing from elsewhere", "text/html", text)})
	live := map[int]*huma.Response{101: {Description: "The WebSocket is open"}}
	for _, code := range []int{400, 401, 403, 405, 426, 429, 503} {
		live[code] = answer(http.StatusText(code), problemType, doc.Components.Schemas.Schema(typeOf[Problem](), true, ""))
	}
	plain(liveOperation, livePath, anyone, "What happens, as it happens, over a WebSocket (subprotocol muster.v1)", live)
}
