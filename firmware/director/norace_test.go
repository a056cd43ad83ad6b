//go:build !race

package director_test

const raced = false
