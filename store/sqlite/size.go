package sqlite

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Size returns the bytes of dir's databases on the disk, with what their write-ahead logs hold.
func Size(_ context.Context, dir string) (int64, error) {
	var bytes int64
	for _, name := range [...]string{"control.db", "control.db-wal", "telemetry.db", "telemetry.db-wal"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a log that was written back
		}
		if err != nil {
			return 0, failed("look at "+name, err)
		}
		bytes += info.Size()
	}
	return bytes, nil
}
