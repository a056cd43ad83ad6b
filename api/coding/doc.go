// Package coding is content coding (RFC 9110, section 8.4): it compresses answers with zstd or gzip for those who
// take that, and reads request bodies that are compressed, within limits that hold before anything is allocated. The
// API wraps its answers and requests in it. It looks at no content and decides nothing about what is answered.
package coding
