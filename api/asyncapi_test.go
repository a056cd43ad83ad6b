package api_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestTheAsyncAPIDocumentIsWhole(t *testing.T) {
	r := newRig(t)
	doc := r.do("GET", "/api/asyncapi.json", nil).wantStatus(t, 200).decode(t)
	at := func(v any, names ...string) any {
		for _, n := range names {
			m, _ := v.(map[string]any)
			v = m[n]
		}
		return v
	}
	if at(doc, "asyncapi") != "3.0.0" || at(doc, "info", "version") != "1.2.3" || at(doc, "info", "title") == nil {
		t.Errorf("its head is %v %v", at(doc, "asyncapi"), at(doc, "info"))
	}
	channels, _ := at(doc, "channels").(map[string]any)
	used := map[string]bool{}
	operations, _ := at(doc, "operations").(map[string]any)
	for name, op := range operations {
		ref, _ := at(op, "channel", "$ref").(string)
		id := strings.TrimPrefix(ref, "#/channels/")
		if channels[id] == nil || at(op, "action") != "send" && at(op, "action") != "receive" {
			t.Errorf("operation %s is %v", name, op)
		}
		used[id] = true
	}
	for id, c := range channels {
		if !used[id] {
			t.Errorf("channel %s has no operation", id)
		}
		address, _ := at(c, "address").(string)
		parameters, _ := at(c, "parameters").(map[string]any)
		if n := strings.Count(address, "{"); n != len(parameters) {
			t.Errorf("channel %s has %d parameters in %s", id, len(parameters), address)
		}
		for name, p := range parameters {
			if words, _ := at(p, "description").(string); words == "" || !strings.Contains(address, "{"+name+"}") {
				t.Errorf("channel %s: parameter %s is %v", id, name, p)
			}
		}
		messages, _ := at(c, "messages").(map[string]any)
		for name, m := range messages {
			ref, _ := at(m, "$ref").(string)
			message := at(doc, "components", "messages", strings.TrimPrefix(ref, "#/components/messages/"))
			if at(message, "payload") == nil || at(message, "contentType") == nil {
				t.Errorf("message %s is %v", name, message)
			}
		}
	}
	for name, s := range at(doc, "servers").(map[string]any) {
		if at(s, "host") == nil || at(s, "protocol") == nil {
			t.Errorf("server %s is %v", name, s)
		}
	}
}

// topicInDocs finds a device's topics in the pages, as they are written there.
var topicInDocs = regexp.MustCompile("`(devices/(?:\\{id\\}|me)/[a-z]+(?:/[a-z{}]+)*|provision/[a-z]+)`")

func TestEveryTopicOfThePagesIsInTheAsyncAPIDocument(t *testing.T) {
	r := newRig(t)
	var known []string
	for _, c := range r.do("GET", "/api/asyncapi.json", nil).decode(t)["channels"].(map[string]any) {
		known = append(known, plainTopic(c.(map[string]any)["address"].(string)))
	}
	pages, err := filepath.Glob("../docs/*.md")
	r.must(err)
	found := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		r.must(err)
		for _, m := range topicInDocs.FindAllStringSubmatch(string(text), -1) {
			found++
			if !slices.Contains(known, plainTopic(m[1])) {
				t.Errorf("%s has the topic %s", page, m[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d topics are found in the pages", found)
	}
}

// plainTopic has + for each parameter.
func plainTopic(topic string) string {
	levels := strings.Split(topic, "/")
	for i, l := range levels {
		if strings.HasPrefix(l, "{") || l == "me" {
			levels[i] = "+"
		}
	}
	return strings.Join(levels, "/")
}
