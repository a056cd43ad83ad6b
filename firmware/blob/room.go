package blob

import (
	"errors"
	"fmt"
	"syscall"

	"muster"
)

// What uploads leave free of their disk, which others may write to as well: a part, and at most so many bytes.
const (
	freePart = 20
	mostFree = 256 << 20
)

// room returns how many bytes uploads may write still; below 0 for none.
func (s *Store) room() (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil {
		return 0, fmt.Errorf("look how full the disk of images is: %w", err)
	}
	size := uint64(st.Bsize)
	return int64(st.Bavail*size) - int64(min(st.Blocks*size/freePart, mostFree)), nil
}

// fits says whether there is room for an upload of a size, when all others that are open come to their ends too.
func (s *Store) fits(size int64) error {
	room, err := s.room()
	if err != nil {
		return err
	}
	open, err := s.Open()
	if err != nil {
		return err
	}
	for _, p := range open {
		room -= max(0, p.Size-p.Offset)
	}
	if size > room || room <= 0 {
		return errFull(room)
	}
	return nil
}

func errFull(room int64) error {
	return &muster.Error{
		Kind: muster.Unavailable, Err: syscall.ENOSPC,
		Msg: fmt.Sprintf("the disk that images are kept on is full: it has room for %d bytes, beside what it keeps free and what other uploads are to be", max(room, 0)),
	}
}

// isFull says whether an error is that of a full disk.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
