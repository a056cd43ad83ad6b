package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"math/big"
	"strings"
	"time"

	"muster"
	"muster/accounts"
	"muster/api"
	"muster/devices/join"
)

type doings = map[string]func(w *writer) deed

// allDoings says of each operation how it is done and which records it leaves.
func allDoings() doings {
	all := doings{}
	for _, part := range []doings{
		deviceDoings(), credentialDoings(), desiredDoings(), joinDoings(), commandDoings(), bulkDoings(), viewDoings(), rightsDoings(), keyDoings(), userDoings(),
		linkDoings(), ownDoings(), sessionDoings(), webhookDoings(), topicDoings(), notificationDoings(), deliveryDoings(), firmwareDoings(), rolloutDoings(),
	} {
		maps.Copy(all, part)
	}
	return all
}

func records(list ...string) []string { return list }

// newDevice makes a device without credentials.
func (w *writer) newDevice() string {
	id := w.name("dev")
	w.device(muster.DeviceID(id))
	return id
}

func deviceDoings() doings {
	return doings{
		"create-device": func(w *writer) deed {
			id := w.name("made")
			return deed{path: "/devices", body: object{"id": id}, want: records("device.create devices/"+id+" a", "credential.create devices/"+id+"/credentials/* a")}
		},
		"change-device": func(w *writer) deed {
			id := w.newDevice()
			return deed{path: "/devices/" + id, body: object{"name": "Changed"}, want: records("device.update devices/" + id + " ba")}
		},
		"delete-device": func(w *writer) deed {
			id := w.newDevice()
			return deed{path: "/devices/" + id + "?data=keep", want: records("device.delete devices/" + id + " ba")}
		},
		"write-telemetry": func(w *writer) deed {
			return deed{path: "/telemetry?device=" + w.newDevice(), body: object{"t": 1}}
		},
		"kick-client": func(w *writer) deed {
			id := w.newDevice()
			w.mqtt.all = []api.Client{{ClientID: "c", Device: muster.DeviceID(id), Connected: true}}
			return deed{path: "/clients:kick", body: object{"client_id": "c", "device": id}, want: records("kick-client clients:kick -")}
		},
	}
}

func credentialDoings() doings {
	with := func(w *writer) (device, credential string) {
		device = w.newDevice()
		made := w.ask("POST", "/devices/"+device+"/credentials", object{"kind": "secret"})
		return device, made["credential"].(object)["id"].(string)
	}
	return doings{
		"add-credential": func(w *writer) deed {
			id := w.newDevice()
			return deed{path: "/devices/" + id + "/credentials", body: object{"kind": "token"}, want: records("credential.create devices/" + id + "/credentials/* a")}
		},
		"rotate-credential": func(w *writer) deed {
			id, c := with(w)
			at := "devices/" + id + "/credentials/"
			return deed{path: "/" + at + c + "/rotate", body: object{}, want: records("credential.create "+at+"* a", "credential.rotate "+at+c+" ba")}
		},
		"remove-credential": func(w *writer) deed {
			id, c := with(w)
			at := "devices/" + id + "/credentials/" + c
			return deed{path: "/" + at, want: records("credential.delete " + at + " b")}
		},
	}
}

// desiredDoings are those of the four levels of desired documents.
func desiredDoings() doings {
	out := doings{}
	for level, at := range map[string]func(w *writer) string{
		"device": func(w *writer) string { return "devices/" + w.newDevice() },
		"group": func(w *writer) string {
			g := w.name("group")
			w.ask("PUT", "/groups/"+g, object{})
			return "groups/" + g
		},
		"profile": func(w *writer) string {
			p := w.name("profile")
			w.ask("PUT", "/profiles/"+p, object{})
			return "profiles/" + p
		},
		"fleet": func(*writer) string { return "fleet" },
	} {
		for verb, body := range map[string]any{"put": object{"rate": 1}, "patch": object{"rate": 2}, "delete": nil} {
			out[verb+"-"+level+"-desired"] = func(w *writer) deed {
				thing := at(w) + "/desired"
				w.ask("PUT", "/"+thing, object{"rate": 7})
				return deed{path: "/" + thing, body: body, want: records("desired.put " + thing + " ba")}
			}
		}
	}
	return out
}

// signed is a certificate for a name by an authority of its own, and that authority's.
func signed(w *writer, ca, name string, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, string) {
	w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: ca + name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: ca != "", BasicConstraintsValid: ca != "",
	}
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	w.must(err)
	c, err = x509.ParseCertificate(der)
	w.must(err)
	return c, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// authority registers one and returns its path.
func (w *writer) authority() string {
	_, _, text := signed(w, w.name("CA "), "", nil, nil)
	return "certificate-authorities/" + w.ask("POST", "/certificate-authorities", object{"name": "Plant", "certificate": text, "proof": "none"})["id"].(string)
}

// candidate has an unknown client come, and returns its name.
func (w *writer) candidate() string {
	name := w.name("came")
	made := w.ask("POST", "/adoption-keys", object{"name": name})
	_, _, _, _, err := w.joining.Greet(join.Hello{ClientID: name, Username: "x", Password: []byte(made["secret"].(string)), Peer: "10.0.0.9:1", Listener: "tcp"})
	w.must(err)
	return name
}

func joinDoings() doings {
	return doings{
		"register-certificate-authority": func(w *writer) deed {
			_, _, text := signed(w, w.name("CA "), "", nil, nil)
			return deed{path: "/certificate-authorities", body: object{"name": "Plant", "certificate": text, "proof": "none"}, want: records("certificate_authority.put certificate-authorities/* a")}
		},
		"change-certificate-authority": func(w *writer) deed {
			at := w.authority()
			return deed{path: "/" + at, body: object{"name": "Other"}, want: records("certificate_authority.put " + at + " ba")}
		},
		"delete-certificate-authority": func(w *writer) deed {
			at := w.authority()
			return deed{path: "/" + at, want: records("certificate_authority.delete " + at + " b")}
		},
		"verify-certificate-authority": func(w *writer) deed {
			ca, key, text := signed(w, w.name("CA "), "", nil, nil)
			made := w.ask("POST", "/certificate-authorities", object{"name": "Plant", "certificate": text})
			_, _, proof := signed(w, "", made["verification_code"].(string), ca, key)
			at := "certificate-authorities/" + made["id"].(string)
			return deed{path: "/" + at + "/verify", body: object{"certificate": proof}, want: records("certificate_authority.put " + at + " ba")}
		},
		"create-adoption-key": func(w *writer) deed {
			return deed{path: "/adoption-keys", body: object{"name": "line"}, want: records("adoption_key.create adoption-keys/* a")}
		},
		"delete-adoption-key": func(w *writer) deed {
			at := "adoption-keys/" + w.ask("POST", "/adoption-keys", object{"name": "line"})["adoption_key"].(object)["id"].(string)
			return deed{path: "/" + at, want: records("adoption_key.delete " + at + " b")}
		},
		"adopt-candidate": func(w *writer) deed {
			c := w.candidate()
			at := "devices/" + c
			return deed{path: "/inbox/" + c + "/adopt", body: object{}, want: records("device.create "+at+" a", "credential.create "+at+"/credentials/* a", "credential.create "+at+"/credentials/* a")}
		},
		"refuse-candidate": func(w *writer) deed {
			return deed{path: "/inbox/" + w.candidate(), want: records("inbox.refuse inbox-blocks/* a")}
		},
		"unblock-client": func(w *writer) deed {
			w.ask("DELETE", "/inbox/"+w.candidate(), nil)
			block := itemsOf(w.as("GET", "/api/v1/inbox-blocks", nil), w)[0]["id"].(string)
			return deed{path: "/inbox-blocks/" + block, want: records("inbox.unblock inbox-blocks/* -")}
		},
		"create-claim-code": func(w *writer) deed {
			id := w.newDevice()
			return deed{path: "/devices/" + id + "/claim-code", body: object{}, want: records("claim_code.create devices/" + id + "/claim-code a")}
		},
		"claim-device": func(w *writer) deed {
			id := w.newDevice()
			code := w.ask("POST", "/devices/"+id+"/claim-code", object{})["code"]
			return deed{path: "/claims", body: object{"code": code}, want: records("device.update devices/"+id+" ba", "claim_code.use devices/"+id+"/claim-code -")}
		},
		"provision": func(w *writer) deed {
			p, id := w.name("profile"), w.name("self")
			w.ask("PUT", "/profiles/"+p, object{})
			made := w.ask("PUT", "/profiles/"+p+"/provisioning", object{"strategy": "create"})
			return deed{
				path: "/provision", body: object{"profile_key": made["key"], "profile_secret": made["secret"], "id": id},
				want: records("device.create devices/"+id+" a", "credential.create devices/"+id+"/credentials/* a"),
			}
		},
	}
}

func commandDoings() doings {
	out := doings{
		"send-command": func(w *writer) deed {
			id := w.newDevice()
			return deed{path: "/devices/" + id + "/commands", body: object{"method": "reboot"}, want: records("command.send devices/" + id + "/commands/* a")}
		},
		"cancel-command": func(w *writer) deed {
			id := w.newDevice()
			at := "devices/" + id + "/commands/" + w.ask("POST", "/devices/"+id+"/commands", object{"method": "reboot"})["id"].(string)
			return deed{path: "/" + at + "/cancel", want: records("command.cancel " + at + " -")}
		},
		"publish-to-device": func(w *writer) deed {
			at := "devices/" + w.newDevice() + "/messages"
			return deed{path: "/" + at, body: object{"topic": "display/text", "payload_text": "x"}, want: records("publish-to-device " + at + " -")}
		},
		"start-simulation": func(*writer) deed {
			return deed{path: "/simulation", body: object{}, want: records("start-simulation simulation -")}
		},
		"end-simulation": func(*writer) deed { return deed{path: "/simulation", want: records("end-simulation simulation -")} },
		"create-job": func(w *writer) deed {
			return deed{path: "/jobs", body: object{"q": "id:" + w.newDevice(), "kind": "command", "method": "m"}, want: records("job.create jobs/* a")}
		},
	}
	for _, verb := range []string{"pause", "resume", "next", "abort"} {
		out[verb+"-job"] = func(w *writer) deed {
			a, b := w.newDevice(), w.newDevice()
			made := w.ask("POST", "/jobs", object{"q": "id:" + a + " or id:" + b, "kind": "command", "method": "m", "waves": []object{{"count": 1}, {"count": 1}}})
			at := "jobs/" + made["job"].(object)["id"].(string)
			if verb == "resume" {
				w.ask("POST", "/"+at+"/pause", nil)
			}
			return deed{path: "/" + at + "/" + verb, want: records("job." + verb + " " + at + " b")}
		}
	}
	return out
}

func bulkDoings() doings {
	two := func(w *writer) []string { return []string{w.newDevice(), w.newDevice()} }
	return doings{
		"import-devices": func(w *writer) deed {
			id := w.name("listed")
			return deed{
				path: "/devices:import", body: "id,credential\n" + id + ",none\n", who: []option{bearer(w.admin), header("Content-Type", "text/csv")},
				want: records("device.create devices/" + id + " a"),
			}
		},
		"update-devices": func(w *writer) deed {
			ids := two(w)
			return deed{path: "/devices:update", body: object{"ids": ids, "tags": object{"a": "b"}}, want: records("device.update devices/"+ids[0]+" ba", "device.update devices/"+ids[1]+" ba")}
		},
		"delete-devices": func(w *writer) deed {
			ids := two(w)
			return deed{path: "/devices:delete", body: object{"ids": ids, "data": "keep"}, want: records("device.delete devices/"+ids[0]+" ba", "device.delete devices/"+ids[1]+" ba")}
		},
		"start-task": func(*writer) deed {
			return deed{path: "/tasks", body: object{"kind": "gate", "input": object{}}, want: records("task.start tasks/* a")}
		},
		"cancel-task": func(w *writer) deed {
			at := "tasks/" + w.ask("POST", "/tasks", object{"kind": "gate", "input": object{}})["id"].(string)
			return deed{path: "/" + at, want: records("task.cancel " + at + " ba")}
		},
	}
}

func rightsDoings() doings {
	account := func(w *writer) string {
		made := w.ask("POST", "/service-accounts", object{"name": w.name("svc")})
		return "service-accounts/" + made["service_account"].(object)["id"].(string)
	}
	return doings{
		"put-group": func(w *writer) deed {
			g := w.name("group")
			return deed{path: "/groups/" + g, body: object{}, want: records("group.put groups/" + g + " a")}
		},
		"delete-group": func(w *writer) deed {
			g := w.name("group")
			w.ask("PUT", "/groups/"+g, object{})
			return deed{path: "/groups/" + g, want: records("group.delete groups/" + g + " b")}
		},
		"put-profile": func(w *writer) deed {
			p := w.name("profile")
			w.ask("PUT", "/profiles/"+p, object{})
			return deed{path: "/profiles/" + p, body: object{"message_rate": 7}, want: records("profile.put profiles/" + p + " ba")}
		},
		"delete-profile": func(w *writer) deed {
			p := w.name("profile")
			w.ask("PUT", "/profiles/"+p, object{})
			return deed{path: "/profiles/" + p, want: records("profile.delete profiles/" + p + " b")}
		},
		"put-provisioning": func(w *writer) deed {
			p := w.name("profile")
			w.ask("PUT", "/profiles/"+p, object{})
			return deed{path: "/profiles/" + p + "/provisioning", body: object{"strategy": "create"}, want: records("provisioning.put profiles/" + p + "/provisioning a")}
		},
		"delete-provisioning": func(w *writer) deed {
			p := w.name("profile")
			w.ask("PUT", "/profiles/"+p, object{})
			w.ask("PUT", "/profiles/"+p+"/provisioning", object{"strategy": "create"})
			return deed{path: "/profiles/" + p + "/provisioning", want: records("provisioning.delete profiles/" + p + "/provisioning -")}
		},
		"create-service-account": func(w *writer) deed {
			return deed{path: "/service-accounts", body: object{"name": w.name("svc")}, want: records("service_account.create service-accounts/* a")}
		},
		"change-service-account": func(w *writer) deed {
			at := account(w)
			return deed{path: "/" + at, body: object{"disabled": true}, want: records("service_account.update " + at + " ba")}
		},
		"delete-service-account": func(w *writer) deed {
			at := account(w)
			return deed{path: "/" + at, want: records("service_account.delete " + at + " b")}
		},
	}
}

func keyDoings() doings {
	return doings{
		"create-api-key": func(*writer) deed {
			return deed{path: "/api-keys", body: object{"name": "k", "scopes": []string{accounts.DevicesRead}}, want: records("api_key.create api-keys/* a")}
		},
		"delete-api-key": func(w *writer) deed {
			made := w.ask("POST", "/api-keys", object{"name": "k", "scopes": []string{accounts.DevicesRead}})
			at := "api-keys/" + made["api_key"].(object)["id"].(string)
			return deed{path: "/" + at, want: records("api_key.delete " + at + " b")}
		},
	}
}

// someone makes a person and returns his address and path.
func (w *writer) someone() (email, at string) {
	email = w.name("ada") + "@example.com"
	return email, "users/" + w.person(email, accounts.Viewer)
}

func userDoings() doings {
	return doings{
		"create-user": func(w *writer) deed {
			return deed{path: "/users", body: object{"email": w.name("bob") + "@example.com", "role": "viewer"}, want: records("user.invite users/* a")}
		},
		"change-user": func(w *writer) deed {
			_, at := w.someone()
			return deed{path: "/" + at, body: object{"role": "operator"}, want: records("user.update " + at + " ba")}
		},
		"delete-user": func(w *writer) deed {
			_, at := w.someone()
			return deed{path: "/" + at, want: records("user.delete " + at + " b")}
		},
		"reset-user-password": func(w *writer) deed {
			_, at := w.someone()
			return deed{path: "/" + at + "/reset", want: records("user.reset_link " + at + " -")}
		},
		"clear-user-totp": func(w *writer) deed {
			email, at := w.someone()
			w.secondFactor(withCookie(w.enter(email)))
			return deed{path: "/" + at + "/totp", want: records("user.totp_off " + at + " ba")}
		},
	}
}

// secondFactor turns one on for who is signed in.
func (w *writer) secondFactor(c option) {
	secret := w.ask("POST", "/me/totp", nil, c)["secret"].(string)
	w.ask("POST", "/me/totp/confirm", object{"code": totpCode(w, secret, 0)}, c)
}

// linkDoings are those of who is nobody yet but has a link.
func linkDoings() doings {
	return doings{
		"accept-invitation": func(w *writer) deed {
			made := w.ask("POST", "/users", object{"email": w.name("bob") + "@example.com", "role": "viewer"})
			token := strings.TrimPrefix(made["invitation"].(string), publicURL+"/invite/")
			at := "users/" + made["user"].(object)["id"].(string)
			return deed{
				path: "/invitations/accept", body: object{"token": token, "name": "Bob", "password": goodPassword},
				want: records("user.accept "+at+" ba", "session.create sessions/* a"),
			}
		},
		"forgot-password": func(w *writer) deed {
			email, _ := w.someone()
			return deed{path: "/password/forgot", body: object{"email": email}}
		},
		"reset-password": func(w *writer) deed {
			email, at := w.someone()
			w.do("POST", "/api/v1/password/forgot", object{"email": email}).wantStatus(w, 202)
			return deed{
				path: "/password/reset", body: object{"token": w.mails.token(w, email, "/reset/"), "password": nextPassword},
				want: records("user.reset " + at + " ba"),
			}
		},
		"confirm-email": func(w *writer) deed {
			email, at := w.someone()
			w.ask("POST", "/me/confirmation", nil, withCookie(w.enter(email)))
			return deed{path: "/email/confirm", body: object{"token": w.mails.token(w, email, "/confirm/")}, want: records("user.confirm " + at + " ba")}
		},
		"set-up": func(w *writer) deed {
			return deed{
				path: "/setup", body: object{"email": w.name("root") + "@example.com", "password": goodPassword}, who: []option{withCookie(w.first)},
				want: records("user.create users/* a"),
			}
		},
	}
}

// ownDoings are what people do with their own accounts.
func ownDoings() doings {
	me := func(path string, body any, want string) func(w *writer) deed {
		return func(w *writer) deed {
			email, at := w.someone()
			return deed{path: "/me" + path, body: body, who: []option{withCookie(w.enter(email))}, want: records(strings.Replace(want, "USER", at, 1))}
		}
	}
	return doings{
		"change-me":            me("", object{"name": "Ada"}, "user.update USER ba"),
		"change-my-password":   me("/password", object{"old": goodPassword, "password": nextPassword}, "user.password USER -"),
		"change-my-email":      me("/email", object{"password": goodPassword, "email": "moved@example.com"}, "change-my-email me/email -"),
		"request-confirmation": me("/confirmation", nil, "request-confirmation me/confirmation -"),
		"begin-totp":           me("/totp", nil, "begin-totp me/totp -"),
		"confirm-totp": func(w *writer) deed {
			email, at := w.someone()
			c := withCookie(w.enter(email))
			secret := w.ask("POST", "/me/totp", nil, c)["secret"].(string)
			return deed{path: "/me/totp/confirm", body: object{"code": totpCode(w, secret, 0)}, who: []option{c}, want: records("user.totp_on " + at + " ba")}
		},
		"delete-totp": func(w *writer) deed {
			email, at := w.someone()
			c := withCookie(w.enter(email))
			w.secondFactor(c)
			return deed{path: "/me/totp", body: object{"password": goodPassword}, who: []option{c}, want: records("user.totp_off " + at + " ba")}
		},
	}
}

func viewDoings() doings {
	have := func(w *writer) (who option, at string) {
		email, _ := w.someone()
		who = withCookie(w.enter(email))
		return who, "views/" + w.ask("POST", "/views", object{"name": "cold"}, who)["id"].(string)
	}
	return doings{
		"create-view": func(w *writer) deed {
			email, _ := w.someone()
			return deed{path: "/views", body: object{"name": "cold"}, who: []option{withCookie(w.enter(email))}, want: records("view.create views/* a")}
		},
		"put-view": func(w *writer) deed {
			who, at := have(w)
			return deed{path: "/" + at, body: object{"name": "colder"}, who: []option{who}, want: records("view.put " + at + " ba")}
		},
		"delete-view": func(w *writer) deed {
			who, at := have(w)
			return deed{path: "/" + at, who: []option{who}, want: records("view.delete " + at + " b")}
		},
	}
}

func sessionDoings() doings {
	return doings{
		"sign-in": func(w *writer) deed {
			return deed{path: "/session", body: object{"key": w.admin}, want: records("session.create sessions/* a")}
		},
		"sign-out": func(w *writer) deed {
			email, _ := w.someone()
			return deed{path: "/session", who: []option{withCookie(w.enter(email))}, want: records("session.delete sessions/* b")}
		},
		"end-session": func(w *writer) deed {
			email, at := w.someone()
			w.enter(email)
			id := itemsOf(w.as("GET", "/api/v1/sessions?user="+strings.TrimPrefix(at, "users/"), nil), w)[0]["id"].(string)
			return deed{path: "/sessions/" + id, want: records("session.delete sessions/" + id + " b")}
		},
		"end-sessions": func(w *writer) deed {
			email, at := w.someone()
			w.enter(email)
			return deed{path: "/sessions?user=" + strings.TrimPrefix(at, "users/"), want: records("session.delete " + at + "/sessions -")}
		},
	}
}

func webhookDoings() doings {
	hook := func(w *writer) string {
		id, _, _ := w.newWebhook("https://127.0.0.1:1/x")
		return "webhooks/" + id
	}
	return doings{
		"create-webhook": func(*writer) deed {
			return deed{path: "/webhooks", body: object{"url": "https://hooks.example.com/a", "types": []string{"*"}}, want: records("webhook.create webhooks/* a")}
		},
		"change-webhook": func(w *writer) deed {
			at := hook(w)
			return deed{path: "/" + at, body: object{"disabled": true}, want: records("webhook.update " + at + " ba")}
		},
		"rotate-webhook-secret": func(w *writer) deed {
			at := hook(w)
			return deed{path: "/" + at + "/rotate", body: object{}, want: records("webhook.rotate " + at + " ba")}
		},
		"test-webhook": func(w *writer) deed {
			at := hook(w)
			return deed{path: "/" + at + "/test", want: records("test-webhook " + at + "/test -")}
		},
		"delete-webhook": func(w *writer) deed {
			at := hook(w)
			return deed{path: "/" + at, want: records("webhook.delete " + at + " b")}
		},
	}
}
