package blob

import (
	"context"
	"crypto/md5"  //nolint:gosec // DDI clients ask for it; nothing is trusted for it
	"crypto/sha1" //nolint:gosec // likewise
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"muster"
	"muster/firmware"
	"muster/firmware/image"
)

const (
	chunkBytes = 256 << 10 // that are read at a time
	keepEvery  = 16 << 20  // bytes after which how far an upload is is kept
	mostState  = 16 << 10  // of the file with it
	maxID      = 64
)

// Progress is how far an upload is.
type Progress = firmware.Progress

// Want is what an upload says of its image beforehand. It is kept with the upload.
type Want = firmware.Upload

// state is how far an upload is, as it is kept: the digests of the first Offset bytes.
type state struct {
	Want   Want   `json:"want"`
	Offset int64  `json:"offset"`
	SHA256 []byte `json:"sha256"`
	SHA1   []byte `json:"sha1"`
	MD5    []byte `json:"md5"`
}

// digests are the three, each fed with every byte.
type digests struct{ sha256, sha1, md5 hash.Hash }

func newDigests() digests {
	return digests{sha256.New(), sha1.New(), md5.New()} //nolint:gosec // see the imports
}

func (d digests) all() []hash.Hash { return []hash.Hash{d.sha256, d.sha1, d.md5} }

func (d digests) write(b []byte) {
	for _, h := range d.all() {
		_, _ = h.Write(b) // a hash never fails
	}
}

// upload is an open upload, held by one caller.
type upload struct {
	id string
	state
	digests
	file    *os.File
	sure    state // what was kept last
	settled bool  // its image is where images lie already: Finish was cut off
}

// Begin opens an upload under an id of the caller's choice, which is made of letters, digits,
// '-' and '_'. An id that is taken is a Conflict; a size over the limit TooLarge; too many
// open uploads Busy; a size for which the disk has no room, beside the other uploads, ENOSPC.
func (s *Store) Begin(id string, w Want) error {
	switch {
	case !isID(id):
		return muster.Errorf(muster.Invalid, "the upload's id is not one")
	case !isDigest(w.SHA256):
		return muster.InvalidAt("sha256", "sha256 is not 64 small hex digits")
	case w.Size < 0:
		return muster.InvalidAt("size", "size is below 0")
	case w.Size > s.limits.Size:
		return muster.Errorf(muster.TooLarge, "the image has %d bytes, at most %d are allowed", w.Size, s.limits.Size)
	}
	let, err := s.hold(id)
	if err != nil {
		return err
	}
	defer let()
	parts, err := filepath.Glob(filepath.Join(s.uploads(), "*.part"))
	if err != nil {
		return fmt.Errorf("count the uploads: %w", err)
	}
	if len(parts) >= s.limits.Uploads {
		return muster.Errorf(muster.Busy, "%d uploads are open, which is the most", len(parts))
	}
	if err := s.fits(w.Size); err != nil {
		return err
	}
	f, err := os.OpenFile(s.part(id), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return muster.Errorf(muster.Conflict, "there is an upload of this id")
	case err != nil:
		return full(fmt.Errorf("begin an upload: %w", err))
	}
	u := &upload{id: id, state: state{Want: w}, digests: newDigests(), file: f}
	err = s.keep(u)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		s.remove(id)
	}
	return err
}

func isID(s string) bool {
	if s == "" || len(s) > maxID {
		return false
	}
	return strings.IndexFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
	}) < 0
}

func (s *Store) part(id string) string { return filepath.Join(s.uploads(), id+".part") }

func (s *Store) kept(id string) string { return filepath.Join(s.uploads(), id+".json") }

// remove discards an upload.
func (s *Store) remove(id string) {
	_ = os.Remove(s.part(id)) // Sweep tries again
	_ = os.Remove(s.kept(id))
	_ = os.Remove(s.kept(id) + ".tmp") // what a full disk left
}

// resume opens an upload where it was kept last. What was written after that is cut off.
func (s *Store) resume(id string) (*upload, error) {
	if !isID(id) {
		return nil, errNoUpload()
	}
	st, err := s.read(id)
	if err != nil {
		return nil, err
	}
	u := &upload{id: id, state: st, sure: st, digests: newDigests()}
	for i, kept := range [][]byte{st.SHA256, st.SHA1, st.MD5} {
		h, ok := u.all()[i].(encoding.BinaryUnmarshaler)
		if !ok {
			return nil, muster.Errorf(muster.Internal, "a digest cannot be resumed")
		}
		if err := h.UnmarshalBinary(kept); err != nil {
			return nil, fmt.Errorf("resume an upload's digest: %w", err)
		}
	}
	u.file, err = os.OpenFile(s.part(id), os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		u.file, err = os.Open(s.path(st.Want.SHA256))
		u.settled = true
	}
	if err != nil {
		return nil, fmt.Errorf("resume an upload: %w", err)
	}
	if u.settled {
		return u, nil
	}
	if err = u.file.Truncate(u.Offset); err == nil {
		_, err = u.file.Seek(u.Offset, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("resume an upload: %w", err), u.file.Close())
	}
	return u, nil
}

func (s *Store) read(id string) (st state, err error) {
	f, err := os.Open(s.kept(id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return st, errNoUpload()
	case err != nil:
		return st, fmt.Errorf("read how far an upload is: %w", err)
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, mostState)).Decode(&st); err != nil {
		return st, fmt.Errorf("read how far an upload is: %w", err)
	}
	return st, nil
}

func errNoUpload() error { return muster.Errorf(muster.NotFound, "there is no such upload") }

// keep makes what was written last, and then how far it is.
func (s *Store) keep(u *upload) error {
	if err := u.file.Sync(); err != nil {
		return full(fmt.Errorf("sync an upload: %w", err))
	}
	for i, to := range []*[]byte{&u.SHA256, &u.SHA1, &u.MD5} {
		h, ok := u.all()[i].(encoding.BinaryMarshaler)
		if !ok {
			return muster.Errorf(muster.Internal, "a digest cannot be kept")
		}
		b, err := h.MarshalBinary()
		if err != nil {
			return fmt.Errorf("keep an upload's digest: %w", err)
		}
		*to = b
	}
	text, err := json.Marshal(u.state)
	if err != nil {
		return fmt.Errorf("keep how far an upload is: %w", err)
	}
	if err := full(replace(s.kept(u.id), text)); err != nil {
		return err
	}
	u.sure = u.state
	return nil
}

// replace writes a file whole or not at all.
func replace(path string, text []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep how far an upload is: %w", err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp) // what a full disk left; the next time it is written anew
		return fmt.Errorf("keep how far an upload is: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// Offset returns how many bytes of an upload are kept, and what it said of itself.
func (s *Store) Offset(id string) (int64, Want, error) {
	if !isID(id) {
		return 0, Want{}, errNoUpload()
	}
	st, err := s.read(id)
	return st.Offset, st.Want, err
}

// Open returns what the uploads that are open said of themselves, and how many bytes of each are kept, by
// their ids; at most Limits.Uploads.
func (s *Store) Open() (map[string]Progress, error) {
	list, err := filepath.Glob(filepath.Join(s.uploads(), "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list the uploads: %w", err)
	}
	out := make(map[string]Progress, len(list))
	for _, path := range list {
		id := strings.TrimSuffix(filepath.Base(path), ".json")
		n, w, err := s.Offset(id)
		if muster.KindOf(err) == muster.NotFound && err != nil { // it ended meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		out[id] = Progress{Upload: w, Offset: n}
	}
	return out, nil
}

// Append adds what r has to an upload, from an offset on, which must be where the upload is:
// else it is a Conflict, and Offset tells. It returns how many bytes are kept then, which
// after an error may be more than before: the upload goes on there. More bytes than were said
// or are allowed are TooLarge, and none of them is kept. When the disk is full, but for what it keeps free,
// it is ENOSPC, and what was not kept yet is cut off at once. ctx ends it between two reads.
func (s *Store) Append(ctx context.Context, id string, offset int64, r io.Reader) (int64, error) {
	let, err := s.hold(id)
	if err != nil {
		return 0, err
	}
	defer let()
	u, err := s.resume(id)
	if err != nil {
		return 0, err
	}
	defer u.file.Close()
	if offset != u.Offset {
		return u.Offset, muster.Errorf(muster.Conflict, "the upload goes on at byte %d", u.Offset)
	}
	began := u.state
	err = s.copy(ctx, u, r)
	switch {
	case muster.KindOf(err) == muster.TooLarge && err != nil:
		return s.back(u, began, err)
	case isFull(err):
		return s.back(u, u.sure, err)
	}
	if kept := s.keep(u); kept != nil {
		return s.back(u, u.sure, errors.Join(err, kept))
	}
	return u.Offset, err
}

// back has an upload be as it was kept once, gives back the room of what came since, and returns where it
// is, with the reason.
func (s *Store) back(u *upload, to state, why error) (int64, error) {
	if to.Offset != u.sure.Offset { // first, for the file may be longer than is kept, and never shorter
		text, err := json.Marshal(to)
		if err == nil {
			err = replace(s.kept(u.id), text)
		}
		if err != nil {
			to, why = u.sure, errors.Join(why, fmt.Errorf("keep how far an upload is: %w", err))
		}
	}
	if !u.settled {
		if err := u.file.Truncate(to.Offset); err != nil {
			why = errors.Join(why, fmt.Errorf("cut an upload off: %w", err))
		}
	}
	return to.Offset, why
}

func (s *Store) copy(ctx context.Context, u *upload, r io.Reader) error {
	most := s.limits.Size
	if u.Want.Size > 0 {
		most = u.Want.Size
	}
	buf, unkept := make([]byte, chunkBytes), int64(0)
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("upload an image: %w", err)
		}
		n, err := r.Read(buf)
		if u.Offset+int64(n) > most {
			return muster.Errorf(muster.TooLarge, "the image has more than %d bytes", most)
		}
		if room, failed := s.room(); failed != nil || room < int64(n) {
			return errors.Join(failed, errFull(room))
		}
		if _, failed := u.file.Write(buf[:n]); failed != nil {
			return full(fmt.Errorf("write an image: %w", failed))
		}
		u.write(buf[:n])
		u.Offset += int64(n)
		if unkept += int64(n); unkept >= keepEvery {
			if err := s.keep(u); err != nil {
				return err
			}
			unkept = 0
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read an image: %w", err)
		}
	}
}

// Finish ends an upload that is whole: its image is in the store then, once, however often it
// comes. An upload that is shorter than it said is a Conflict, and stays; one whose digest is
// another is Invalid, and is gone.
func (s *Store) Finish(id string) (Sum, error) {
	let, err := s.hold(id)
	if err != nil {
		return Sum{}, err
	}
	defer let()
	u, err := s.resume(id)
	if err != nil {
		return Sum{}, err
	}
	defer u.file.Close()
	sum := Sum{SHA256: hexOf(u.sha256), SHA1: hexOf(u.sha1), MD5: hexOf(u.md5), Size: u.Offset}
	if err := s.whole(u); err != nil {
		return Sum{}, err
	}
	if sum.Image, err = image.Of(u.file, u.Offset); err != nil {
		return Sum{}, fmt.Errorf("look at an image: %w", err)
	}
	if !u.settled {
		if err := s.settle(u, sum.SHA256); err != nil {
			return Sum{}, err
		}
		s.took(sum.SHA256)
	}
	s.remove(id)
	return sum, nil
}

// Whole calls use with the bytes of an upload that is whole, which stays as it is; nobody else writes to
// it meanwhile. The errors are those of Finish, and of use.
func (s *Store) Whole(id string, use func(w Want, size int64, r io.Reader) error) error {
	let, err := s.hold(id)
	if err != nil {
		return err
	}
	defer let()
	u, err := s.resume(id)
	if err != nil {
		return err
	}
	defer u.file.Close()
	if err := s.whole(u); err != nil {
		return err
	}
	return use(u.Want, u.Offset, io.NewSectionReader(u.file, 0, u.Offset))
}

// whole says what is missing of an upload. One with another digest than it said is gone then.
func (s *Store) whole(u *upload) error {
	switch {
	case u.Want.Size > 0 && u.Offset < u.Want.Size:
		return muster.Errorf(muster.Conflict, "%d of %d bytes are here", u.Offset, u.Want.Size)
	case u.Offset == 0:
		return muster.Errorf(muster.Conflict, "the image is empty")
	case hexOf(u.sha256) != u.Want.SHA256:
		s.remove(u.id)
		return muster.InvalidAt("sha256", "the image that came has another SHA-256 than was said")
	}
	return nil
}

func hexOf(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// settle moves a whole upload to where images lie.
func (s *Store) settle(u *upload, digest string) error {
	to := s.path(digest)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return full(fmt.Errorf("make the directory of an image: %w", err))
	}
	if err := syncDir(filepath.Join(s.dir, "sha256")); err != nil {
		return err
	}
	err := u.file.Sync()
	if err == nil {
		err = u.file.Chmod(0o400)
	}
	if err == nil {
		err = os.Rename(s.part(u.id), to)
	}
	if err != nil {
		return full(fmt.Errorf("keep an image: %w", err))
	}
	return syncDir(filepath.Dir(to))
}

// Discard ends an upload, and forgets what came of it.
func (s *Store) Discard(id string) error {
	if !isID(id) {
		return errNoUpload()
	}
	let, err := s.hold(id)
	if err != nil {
		return err
	}
	defer let()
	if _, err := s.read(id); err != nil {
		return err
	}
	s.remove(id)
	return nil
}

// Sweep discards the uploads that nobody has written to for longer than Limits.Idle, and
// returns how many there were.
func (s *Store) Sweep() (n int, err error) {
	files, err := os.ReadDir(s.uploads())
	if err != nil {
		return 0, fmt.Errorf("list the uploads: %w", err)
	}
	for _, f := range files {
		id, _, _ := strings.Cut(f.Name(), ".")
		info, err := f.Info()
		if err != nil || s.now().Sub(info.ModTime()) < s.limits.Idle || s.young(id) {
			continue // it ended meanwhile, or goes on
		}
		if let, err := s.hold(id); err == nil {
			s.remove(id)
			let()
			n++
		}
	}
	return n, nil
}

// young says whether an upload was written to of late: its two files are not written at the
// same time.
func (s *Store) young(id string) bool {
	for _, path := range []string{s.part(id), s.kept(id)} {
		if info, err := os.Stat(path); err == nil && s.now().Sub(info.ModTime()) < s.limits.Idle {
			return true
		}
	}
	return false
}
