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
	a.ackOperations(doc)
	imageOperation(doc)
	plain("get-openapi", "/api/openapi.json", public, "This document", map[int]*huma.Response{200: answer("OpenAPI 3.1", "application/json", object)})
	plain("get-asyncapi", "/api/asyncapi.json", public, "The MQTT side, as an AsyncAPI document", map[int]*huma.Response{200: answer("AsyncAPI 3.0", "application/json", object)})
	plain("get-docs", docsPath, public, "This document as a page for people", map[int]*huma.Response{200: answer("The page, which loads nothing from elsewhere", "text/html", text)})
	live := map[int]*huma.Response{101: {Description: "The WebSocket is open"}}
	for _, code := range []int{400, 401, 403, 405, 426, 429, 503} {
		live[code] = answer(http.StatusText(code), problemType, doc.Components.Schemas.Schema(typeOf[Problem](), true, ""))
	}
	plain(liveOperation, livePath, anyone, "What happens, as it happens, over a WebSocket (subprotocol muster.v1)", live)
}

// imageOperation documents the addresses of images, which devices get with their offers.
func imageOperation(doc *huma.OpenAPI) {
	text := &huma.Schema{Type: huma.TypeString}
	number := &huma.Schema{Type: huma.TypeInteger, Format: "int64"}
	param := func(in, name, words string, s *huma.Schema) *huma.Param {
		return &huma.Param{Name: name, In: in, Required: in != "header", Description: words, Schema: s}
	}
	image := func(words string, kinds ...string) *huma.Response {
		r := &huma.Response{Description: words, Content: map[string]*huma.MediaType{}}
		for _, kind := range kinds {
			r.Content[kind] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}
		}
		return r
	}
	const bytes, many = "application/octet-stream", "multipart/byteranges"
	op := &huma.Operation{
		OperationID: "get-image", Method: http.MethodGet, Path: imagePath, Tags: []string{"firmware"}, Summary: "Fetch an image, whole or in ranges",
		Description: "The address comes with an offer, and is good for one device, one action and one image until it expires. " +
			"HEAD says what GET would. At most 8 ranges are sent, which are not more than the image together.",
		Security: security(public),
		Parameters: []*huma.Param{
			param("path", "sha256", "The image's SHA-256, in small hex digits", text), param("query", "d", "The device", text),
			param("query", "a", "The action", number), param("query", "exp", "When the address expires, in Unix seconds", number),
			param("query", "sig", "The signature of all of it", text), param("header", "Range", "Pieces, as RFC 9110 has them", text),
			param("header", "If-Range", "The ETag that the pieces are to be of", text),
		},
		Responses: map[string]*huma.Response{
			"200": image("The image", bytes), "206": image("Pieces of it", bytes, many), "304": {Description: "The image is the one that If-None-Match names"},
		},
	}
	problem := doc.Components.Schemas.Schema(typeOf[Problem](), true, "")
	for _, code := range []int{401, 403, 404, 405, 410, 412, 416, 429, 500, 503} {
		op.Responses[strconv.Itoa(code)] = &huma.Response{
			Description: http.StatusText(code), Content: map[string]*huma.MediaType{problemType: {Schema: problem}},
		}
	}
	op.Responses["403"].Extensions = map[string]any{codesExtension: []string{"budget_spent"}}
	doc.AddOperation(op)
}

// ackOperations documents the pages of the links in mails.
func (a *API) ackOperations(doc *huma.OpenAPI) {
	text := &huma.Schema{Type: huma.TypeString}
	page := func(words string) *huma.Response {
		return &huma.Response{Description: words, Content: map[string]*huma.MediaType{"text/html": {Schema: text}}}
	}
	answers := func(more ...int) map[string]*huma.Response {
		out := map[string]*huma.Response{"200": page("The notification, and who takes care of it")}
		for _, code := range append([]int{403, 404, 405, 429, 500, 503}, more...) {
			out[strconv.Itoa(code)] = page(http.StatusText(code))
		}
		return out
	}
	token := []*huma.Param{{Name: "token", In: "path", Required: true, Description: "The link's token, which is the right to ack", Schema: text}}
	doc.AddOperation(&huma.Operation{
		OperationID: "open-ack-link", Method: http.MethodGet, Path: ackPath, Tags: []string{"notifications"}, Summary: "The page of a mail's ack link; it changes nothing",
		Security: security(public), Parameters: token, Responses: answers(),
	})
	longest := 500
	doc.AddOperation(&huma.Operation{
		OperationID: "ack-by-link", Method: http.MethodPost, Path: ackPath, Tags: []string{"notifications"}, Summary: "Take care of a notification by its ack link",
		Security: security(public), Parameters: token, Responses: answers(400, 413, 415, 422),
		RequestBody: &huma.RequestBody{Content: map[string]*huma.MediaType{"application/x-www-form-urlencoded": {
			Schema:  &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{"note": {Type: huma.TypeString, MaxLength: &longest}}},
			Example: map[string]any{"note": "I am on my way"},
		}}},
	})
}
