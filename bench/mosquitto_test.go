package bench

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mosquittoRights give each user what Muster gives a device, and the administrator
// every topic.
const mosquittoRights = `user bench-admin
topic readwrite #
pattern readwrite devices/%u/#
`

// startMosquitto starts Mosquitto with a user for each device, checked against a
// password file and an ACL, and without persistence: its acks mean that a message
// is in its memory. Its windows and queues have no bound, with which it is faster
// and loses nothing; all else is as it comes.
func startMosquitto(b *testing.B, devices int) (*server, []login) {
	b.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto"
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			b.Fatal("there is no mosquitto (scripts/setup-test.sh installs it), and CI skips nothing")
		}
		b.Skip("there is no mosquitto (scripts/setup-test.sh installs it)")
	}
	s := &server{b: b, name: "mosquitto", mqtt: freeAddr(b), path: path}
	s.listens = func() bool {
		c, err := net.DialTimeout("tcp", s.mqtt, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	logins := make([]login, devices, devices+1)
	for i := range logins {
		logins[i] = newUser(fmt.Sprintf("bench-%05d", i))
	}
	s.admin = newUser("bench-admin")
	s.args = []string{"-c", mosquittoFiles(b, s.mqtt, append(logins, s.admin))}
	b.Cleanup(s.stop)
	s.start()
	return s, logins
}

func newUser(id string) login { return login{id: id, user: id, password: rand.Text()} }

// mosquittoFiles writes the configuration, the users and their rights, and returns
// the path of the first.
func mosquittoFiles(b *testing.B, addr string, users []login) string {
	b.Helper()
	dir := b.TempDir()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		b.Fatal(err)
	}
	var passwords strings.Builder
	for _, u := range users {
		fmt.Fprintf(&passwords, "%s:%s\n", u.user, mosquittoHash(b, u.password))
	}
	path := filepath.Join(dir, "mosquitto.conf")
	config := fmt.Sprintf("listener %s %s\npersistence false\nmax_inflight_messages 0\nmax_queued_messages 0\nlog_type error\nallow_anonymous false\npassword_file %s\nacl_file %s\n",
		port, host, filepath.Join(dir, "users"), filepath.Join(dir, "rights"))
	if os.Geteuid() == 0 {
		config += "user root\n" // else it becomes a user who may not read these files
	}
	for name, text := range map[string]string{"mosquitto.conf": config, "users": passwords.String(), "rights": mosquittoRights} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	return path
}

// mosquittoHash is what stands for a password in Mosquitto's file,
// PBKDF2 with SHA-512. The tool makes 101 rounds, which cost 1.3 ms and would be all
// of a connect; passwords as random as a token need but one.
func mosquittoHash(b *testing.B, password string) string {
	b.Helper()
	const hashRounds = 1
	salt := make([]byte, 12)
	if _, err := rand.Read(salt); err != nil {
		b.Fatal(err)
	}
	hash, err := pbkdf2.Key(sha512.New, password, salt, hashRounds, sha512.Size)
	if err != nil {
		b.Fatal(err)
	}
	return fmt.Sprintf("$7$%d$%s$%s", hashRounds, base64.StdEncoding.EncodeToString(salt), base64.StdEncoding.EncodeToString(hash))
}
