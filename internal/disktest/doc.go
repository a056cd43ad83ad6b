// Package disktest gives tests a disk that is soon full.
//
// It is called by tests only, on Linux and as root, which CI is.
package disktest
