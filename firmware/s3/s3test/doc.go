// Package s3test is a server that speaks S3, for the tests of what keeps images in one.
//
// It owns one bucket in memory. Tests start it; no product code does, and it is no object store for
// anybody else.
package s3test
