package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"muster"
)

// mostLooks bounds how often one call looks at an image that changes meanwhile.
const mostLooks = 3

// mostProofs bounds what is known of images: of more the next is looked at anew.
const mostProofs = 1 << 16

// stamp is what changes of a file with its bytes.
type stamp struct {
	dev, ino          uint64
	size              int64
	modified, changed int64 // nanoseconds
}

func stampOf(f *os.File) (stamp, error) {
	info, err := f.Stat()
	if err != nil {
		return stamp{}, fmt.Errorf("look at an image: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{}, muster.Errorf(muster.Internal, "a file cannot be told from another")
	}
	return stamp{st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

// proof is what is known of an image as it was at a stamp.
type proof struct {
	stamp stamp
	done  chan struct{} // closed when err is set
	err   error
}

// Wrong is called with each image whose bytes are not those of its digest, when that is found.
type Wrong func(digest string)

// OnWrong has fn be called. Call it once, before images are opened.
func (s *Store) OnWrong(fn Wrong) { s.onWrong = fn }

// WrongImages returns how many images are known to be here with other bytes than their digests'.
func (s *Store) WrongImages() (n int) {
	s.proving.Lock()
	defer s.proving.Unlock()
	for _, p := range s.proofs {
		select {
		case <-p.done:
			if IsWrong(p.err) {
				n++
			}
		default:
		}
	}
	return n
}

// errWrong is that of an image whose bytes were changed.
var errWrong = &muster.Error{
	Kind: muster.Unavailable,
	Msg:  "the image is not what was uploaded any more: its bytes on the server's disk were changed. It is served to nobody; upload it again",
}

// IsWrong says whether an image was refused since its bytes were changed.
func IsWrong(err error) bool { return errors.Is(err, errWrong) }

// Prove says whether a file of the store has the bytes of a digest: Unavailable when not. It reads them
// once in a process, whoever asks meanwhile, and again when the file's size, times or inode have changed. With a
// wait above 0 it waits no longer than that for somebody's reading, and below 0 it does not wait at all: then it is Unavailable
// too, and may be asked for again.
func (s *Store) Prove(digest string, f *os.File, wait time.Duration) error {
	for range mostLooks {
		is, err := stampOf(f)
		if err != nil {
			return err
		}
		p, mine := s.proof(digest, is)
		switch {
		case mine && wait == 0:
			s.look(digest, f, p)
		case mine:
			s.lookAside(digest, p)
		}
		if err := p.wait(wait); err != nil {
			return err
		}
		if now, err := stampOf(f); err != nil || now == is {
			if err != nil {
				return err
			}
			return p.err
		}
	}
	return errProving() // somebody writes to it all the time
}

// proof returns what is known, or is to be known, of an image; mine says that the caller is to find out.
func (s *Store) proof(digest string, is stamp) (p *proof, mine bool) {
	s.proving.Lock()
	defer s.proving.Unlock()
	if p := s.proofs[digest]; p != nil && p.stamp == is {
		return p, false
	}
	if len(s.proofs) >= mostProofs {
		for other := range s.proofs { // any
			delete(s.proofs, other)
			break
		}
	}
	p = &proof{stamp: is, done: make(chan struct{})}
	s.proofs[digest] = p
	return p, true
}

// wait waits for a proof: for ever, for a time, or not at all.
func (p *proof) wait(wait time.Duration) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	switch {
	case wait == 0:
		<-p.done
		return nil
	case wait < 0:
		return errProving()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return errProving()
	}
}

func errProving() error {
	return muster.Errorf(muster.Unavailable, "the image's bytes are being checked: ask again")
}

// lookAside finds out in a goroutine, which Close waits for.
func (s *Store) lookAside(digest string, p *proof) {
	s.looking.Go(func() {
		f, err := s.Bare(digest)
		if err != nil {
			s.known(digest, p, err)
			return
		}
		defer f.Close()
		if is, err := stampOf(f); err != nil || is != p.stamp { // it is another by now
			s.known(digest, p, errors.Join(err, errProving()))
			return
		}
		s.look(digest, f, p)
	})
}

// look reads an image, and keeps what came of it.
func (s *Store) look(digest string, f *os.File, p *proof) {
	at := int64(0)
	sum, err := sumOf(io.NewSectionReader(f, 0, p.stamp.size), s.ended, func(n int) { at += int64(n) })
	switch {
	case err != nil && muster.KindOf(err) == muster.Internal, err == nil && at < p.stamp.size: // cut off meanwhile
		err = &muster.Error{Kind: muster.Unavailable, Msg: "the image cannot be read", Err: err}
	case err == nil && sum != digest:
		err = errWrong
	}
	s.known(digest, p, err)
}

// known keeps what a reading found. What could not be read is read again by the next who asks.
func (s *Store) known(digest string, p *proof, err error) {
	s.proving.Lock()
	p.err = err
	if err != nil && !IsWrong(err) && s.proofs[digest] == p {
		delete(s.proofs, digest)
	}
	s.proving.Unlock()
	if IsWrong(err) && s.onWrong != nil {
		s.onWrong(digest)
	}
	close(p.done)
}

// ended says whether the store was closed.
func (s *Store) ended() error {
	select {
	case <-s.closing:
		return muster.Errorf(muster.Unavailable, "the server stops")
	default:
		return nil
	}
}

// took notes that an image has just come, and that its bytes were seen.
func (s *Store) took(digest string) {
	f, err := s.Bare(digest)
	if err != nil { // the next who opens it looks
		return
	}
	defer f.Close()
	is, err := stampOf(f)
	if err != nil {
		return
	}
	p := &proof{stamp: is, done: make(chan struct{})}
	close(p.done)
	s.proving.Lock()
	defer s.proving.Unlock()
	delete(s.proofs, digest)
	if len(s.proofs) < mostProofs {
		s.proofs[digest] = p
	}
}

// Close ends what is being looked at, and waits for it.
func (s *Store) Close() {
	s.closed.Do(func() { close(s.closing) })
	s.looking.Wait()
}

// Steady is an image that is read for a while: each reading looks whether the file is still what it was.
type Steady struct {
	*os.File
	was stamp
}

// Steadily returns it, of a file that was proven.
func Steadily(f *os.File) (*Steady, error) {
	was, err := stampOf(f)
	return &Steady{f, was}, err
}

// ReadAt implements io.ReaderAt. A file that was changed since is Unavailable.
func (x *Steady) ReadAt(b []byte, at int64) (int, error) {
	if err := x.Still(); err != nil {
		return 0, err
	}
	return x.File.ReadAt(b, at) //nolint:wrapcheck // as a file does
}

// Still says whether the file is what it was: Unavailable when not.
func (x *Steady) Still() error {
	switch is, err := stampOf(x.File); {
	case err != nil:
		return err
	case is != x.was:
		return muster.Errorf(muster.Unavailable, "the image was changed while it was read")
	}
	return nil
}

// Sum256 reads the image of a digest in a store's directory, which is not opened for that and not changed, and returns its
// SHA-256 in hex. read is called with the bytes of each piece that was read. NotFound when there is none.
func Sum256(ctx context.Context, dir, digest string, read func(n int)) (string, error) {
	f, err := Look(dir, digest)
	if err != nil {
		return "", err
	}
	sum, err := SumOf(ctx, f, read)
	return sum, errors.Join(err, f.Close())
}

// Look opens the image of a digest in a store's directory, as Sum256 does.
func Look(dir, digest string) (*os.File, error) { return (&Store{dir: dir}).Bare(digest) }

// SumOf returns the SHA-256 in hex of all that r has, in constant memory. read is called with the bytes of each piece.
func SumOf(ctx context.Context, r io.Reader, read func(n int)) (string, error) {
	return sumOf(r, ctx.Err, read)
}

// sumOf is SumOf that ended ends.
func sumOf(r io.Reader, ended func() error, read func(n int)) (string, error) {
	h, buf := sha256.New(), make([]byte, chunkBytes)
	for {
		if err := ended(); err != nil {
			return "", fmt.Errorf("read an image: %w", err)
		}
		n, err := r.Read(buf)
		_, _ = h.Write(buf[:n]) // a hash never fails
		read(n)
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", fmt.Errorf("read an image: %w", err)
		}
	}
}
