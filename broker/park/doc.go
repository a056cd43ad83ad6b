// Package park waits for sockets to become readable without a goroutine for each.
// It owns one epoll instance, which itself waits inside Go's network poller, so
// that no thread blocks. The broker parks connections that have nothing to read;
// the package never reads, writes or closes a socket. On systems without epoll
// New answers ErrUnsupported, and the caller keeps a goroutine per connection.
package park
